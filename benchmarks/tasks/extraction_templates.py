"""Texts with gaps, questions about them, and the values that fill the gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks import split


@dataclass(frozen=True)
class Template:
    """A text whose gaps are filled with values, and questions that ask for one gap each."""

    name: str
    text: str
    """Gaps as in str.format; a gap is a kind of value, then a digit if a second one is needed."""
    questions: Sequence[tuple[str, str]]
    """(gap that holds the answer, question)."""
    eval_only: bool = False
    """Never used for training rows."""


VALUES: Mapping[str, Sequence[str]] = {
    "day": split("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "person": split(
        "Amira, Boris, Clara, Dmitri, Elena, Farid, Greta, Hassan, Ingrid, Jorge, Kirsten, "
        "Luca, Marta, Nils, Olga, Pedro, Rosa, Stefan, Teresa, Umberto, Vera, Walter, Yusuf, "
        "Zoe"
    ),
    "city": split(
        "Porto, Bergen, Krakow, Seville, Lyon, Ghent, Turin, Graz, Malmo, Cork, Leeds, "
        "Bremen, Basel, Aarhus, Tartu, Split, Varna, Utrecht"
    ),
    "time": [f"{hour}:{minute:02}" for hour in range(8, 20) for minute in (10, 45)],
    "date": [
        f"{day} {month}"
        for day, month in zip(
            (4, 17, 9, 26, 12, 30, 8, 21, 13, 5, 24, 16, 29, 20, 27, 23),
            split(
                "March, March, April, April, May, May, June, June, July, July, August, August, "
                "October, October, November, November"
            ),
            strict=True,
        )
    ],
    "amount": [f"{euros} euros" for euros in range(14, 99, 5)],
    "degrees": [f"{degrees} degrees" for degrees in range(3, 32, 2)],
    "weight": [f"{grams} grams" for grams in range(120, 660, 35)],
    "code": split("K417, R283, T590, M126, B834, H705, D362, P948, F571, W239, S680, N153"),
    "item": split(
        "coffee grinder, wool blanket, desk lamp, garden chair, bread knife, rain jacket, "
        "picture frame, travel pillow, bicycle pump, wall clock, camping stove, paper "
        "shredder, shoe rack, table fan, water filter, tool box"
    ),
    "place": split(
        "town library, sports hall, old brewery, city museum, music school, swimming pool, "
        "town hall, fire station, community centre, river café, book shop, tennis club, post "
        "office, film studio"
    ),
    "food": split(
        "butter, rice, flour, carrots, lentils, yoghurt, spinach, honey, mushrooms, cheese, "
        "oats, tomatoes, almonds, potatoes"
    ),
    "reason": split(
        "a burst pipe in the cellar, a strike at the harbour, heavy snow on the main road, a "
        "broken lift on the second floor, a mistake in the address, the illness of two "
        "drivers, a power cut in the whole street, missing parts from the supplier, a storm "
        "along the coast, a fault in the booking system, repairs to the railway bridge, a "
        "delay at the customs office"
    ),
    "step": split(
        "restart the router, clear the browser history, install the new update, check the "
        "cable behind the screen, reset the password on the website, remove the battery for "
        "ten seconds, close all other programs, send a photo of the label, turn off the "
        "second monitor, press the red button twice, delete the old profile, move the printer "
        "closer to the window"
    ),
    "animal": split("grey cat, brown rabbit, old parrot, small goat, black dog, white horse"),
}

CLOSING_SENTENCES = (
    "Thank you for your patience.",
    "Please write to us if you have any questions.",
    "We are sorry for the trouble.",
    "All other plans stay as they are.",
    "This message was sent to everybody on the list.",
    "You do not have to answer this message.",
    "More details will follow soon.",
)
"""Without values; up to two of them stand behind a text."""

TEMPLATES: Sequence[Template] = (
    Template(
        "delivery_dates",
        "Thank you for your order. The {item} leaves our warehouse on {day} and reaches you on "
        "{day2}. The {item2} is out of stock because of {reason}, and we will send it later.",
        [
            ("item2", "Which article is out of stock?"),
            ("day", "On which day does the parcel leave the warehouse?"),
            ("day2", "On which day does the parcel arrive?"),
            ("reason", "Why is one article out of stock?"),
        ],
    ),
    Template(
        "delivery_neighbour",
        "Hello {person}, our driver came at {time}, but nobody opened the door. He left the {item} "
        "with your neighbour {person2}. He will come back at {time2} tomorrow and bring the "
        "{item2}, too.",
        [
            ("person2", "What is the name of the neighbour?"),
            ("item", "What did the driver leave with the neighbour?"),
            ("item2", "What will the driver bring tomorrow?"),
            ("time2", "At what time will the driver come back?"),
        ],
    ),
    Template(
        "meeting_moved",
        "The meeting about the new office was planned for {day} at {time}. {person} is away that "
        "day, so we moved it to {day2} at {time2}. {person2} will write the minutes.",
        [
            ("day2", "To which day was the meeting moved?"),
            ("time2", "At what time does the meeting start now?"),
            ("person", "Who is away on the first day?"),
            ("person2", "Who will write the minutes?"),
        ],
    ),
    Template(
        "meeting_agenda",
        "On {day} we first hear {person}, who talks about {reason}. At {time} {person2} presents "
        "the budget. We want to finish by {time2}, and lunch is at the {place}.",
        [
            ("person2", "Who presents the budget?"),
            ("reason", "What does the first speaker talk about?"),
            ("time2", "By what time do they want to finish?"),
            ("place", "Where is lunch?"),
        ],
    ),
    Template(
        "invoice_paid",
        "Invoice {code} for the {item} is still open. The amount is {amount} and is due on {date}. "
        "Your payment of {amount2} for invoice {code2} arrived on {date2}. Thank you.",
        [
            ("code", "Which invoice is still open?"),
            ("amount", "How much is still to be paid?"),
            ("date", "When is the open invoice due?"),
            ("date2", "When did the payment arrive?"),
        ],
    ),
    Template(
        "weather_cities",
        "In {city} it will be sunny on {day} with {degrees} at noon. {city2} expects {degrees2} "
        "and strong wind. From {day2} on there will be rain everywhere.",
        [
            ("city2", "Which city expects strong wind?"),
            ("degrees", "How warm will it be in the sunny city?"),
            ("degrees2", "How warm will it be in the windy city?"),
            ("day2", "From which day on will it rain everywhere?"),
        ],
    ),
    Template(
        "recipe_soup",
        "For the soup you need {weight} of {food} and {weight2} of {food2}. Cook the {food} first. "
        "{person} also adds a spoon of {food3} at the end.",
        [
            ("food3", "What is added at the end?"),
            ("weight", "How much of the first ingredient is needed?"),
            ("weight2", "How much of the second ingredient is needed?"),
            ("food2", "What is the second ingredient?"),
        ],
    ),
    Template(
        "recipe_bread",
        "{person} bakes this bread every {day}. Mix {weight} of {food} with warm water and let it "
        "rest. Then add the {food2}. Bake it at {time} so that it is ready at {time2}.",
        [
            ("day", "On which day is the bread baked?"),
            ("food2", "What is added after the rest?"),
            ("time", "At what time does the bread go into the oven?"),
            ("time2", "At what time is the bread ready?"),
        ],
    ),
    Template(
        "support_steps",
        "Ticket {code}: the customer {person} wrote on {day} that the screen stays dark. We asked "
        "the customer to {step}. If that does not help, {person2} will call on {day2}.",
        [
            ("step", "What did the support team ask the customer to do?"),
            ("person", "What is the name of the customer?"),
            ("person2", "Who will call the customer?"),
            ("day2", "On which day will the customer be called?"),
        ],
    ),
    Template(
        "support_two_tickets",
        "We closed ticket {code} because the customer was able to {step}. Ticket {code2} is still "
        "open: {person} needs a new {item}, but {person2} has already received one.",
        [
            ("code", "Which ticket is closed?"),
            ("code2", "Which ticket is still open?"),
            ("person", "Who needs something new?"),
            ("person2", "Who has already received something new?"),
        ],
    ),
    Template(
        "travel_trains",
        "The train to {city} leaves at {time} and costs {amount}. The train to {city2} leaves at "
        "{time2} and costs {amount2}. Both start late today because of {reason}.",
        [
            ("city2", "Where does the second train go?"),
            ("time", "When does the first train leave?"),
            ("amount2", "How much does the second train cost?"),
            ("reason", "Why do the trains start late?"),
        ],
    ),
    Template(
        "school_trip",
        "Dear parents, class 4 visits the {place} on {date2}. The bus leaves at {time}. Please pay "
        "{amount} by {date}. {person} and {person2} go with the children, and {person} has the "
        "tickets.",
        [
            ("place", "Where does the class go?"),
            ("date2", "On what date is the trip?"),
            ("date", "By what date must the parents pay?"),
            ("time", "When does the bus leave?"),
        ],
    ),
    Template(
        "library_books",
        "{person} borrowed three books and a map of {city} from the {place}. The books are due on "
        "{date}, the map on {date2}. A late book costs {amount}.",
        [
            ("person", "Who borrowed the books?"),
            ("city", "Which city does the map show?"),
            ("date", "When are the books due?"),
            ("date2", "When is the map due?"),
        ],
    ),
    Template(
        "sport_match",
        "The team from {city} won against {city2} on {day}. {person} scored the first goal and "
        "{person2} the last one. The next match is on {day2} at {time}.",
        [
            ("city", "Which team won?"),
            ("person", "Who scored the first goal?"),
            ("person2", "Who scored the last goal?"),
            ("day2", "On which day is the next match?"),
        ],
    ),
    Template(
        "repair_heating",
        "The heating at the {place} does not work because of {reason}. {person} looked at it on "
        "{day}. The repair costs {amount}, and a new heater costs {amount2}.",
        [
            ("reason", "Why does the heating not work?"),
            ("person", "Who looked at the heating?"),
            ("amount", "How much does the repair cost?"),
            ("amount2", "How much does a new heater cost?"),
        ],
    ),
    Template(
        "hotel_booking",
        "We booked two rooms in {city} for {person} and {person2}. They arrive on {date} and leave "
        "on {date2}. Each night costs {amount}. Breakfast is at the {place2}, dinner is at the "
        "{place}.",
        [
            ("city", "In which city is the hotel?"),
            ("date", "On what date do the guests arrive?"),
            ("date2", "On what date do the guests leave?"),
            ("place2", "Where is breakfast?"),
        ],
    ),
    Template(
        "doctor_appointment",
        "Dear {person}, your appointment on {date} at {time} has to be cancelled because of "
        "{reason}. Doctor {person2} can see you on {date2} at {time2} instead.",
        [
            ("person2", "What is the name of the doctor?"),
            ("date", "Which appointment was cancelled?"),
            ("date2", "What is the date of the new appointment?"),
            ("reason", "Why was the appointment cancelled?"),
        ],
        eval_only=True,
    ),
    Template(
        "lost_and_found",
        "Found on {day} near the {place}: a {item} with the name {person} on it. On {day2} "
        "somebody also left a {item2} at the {place2}. Ask for {person2} at the desk.",
        [
            ("item", "What was found with a name on it?"),
            ("place2", "Where was the second thing left?"),
            ("person", "Which name is on the first thing?"),
            ("person2", "Who should you ask for at the desk?"),
        ],
        eval_only=True,
    ),
    Template(
        "concert_tickets",
        "The doors of the {place} open at {time}, and the concert starts at {time2}. Tickets cost "
        "{amount} online until {date}, or {amount2} at the door. Last year it was at the {place2}.",
        [
            ("place", "Where is the concert this year?"),
            ("time2", "When does the concert start?"),
            ("time", "When do the doors open?"),
            ("amount2", "How much is a ticket at the door?"),
        ],
        eval_only=True,
    ),
    Template(
        "flat_viewing",
        "You can see the flat in {city} on {day} or on {day2}. {person} has the key on the first "
        "day and {person2} on the second. The kitchen has a {item}, but no {item2}.",
        [
            ("city", "In which city is the flat?"),
            ("person", "Who has the key on the first day?"),
            ("person2", "Who has the key on the second day?"),
            ("item2", "What does the kitchen not have?"),
        ],
        eval_only=True,
    ),
    Template(
        "pet_sitter",
        "While I am in {city}, please feed the {animal} at {time} and the {animal2} at {time2}. "
        "Give the {animal2} some {food}. {person} can tell you where to find the {food2}.",
        [
            ("city", "Where does the writer go?"),
            ("time", "When does the first animal get its food?"),
            ("time2", "When does the second animal get its food?"),
            ("person", "Who can help to find something?"),
        ],
        eval_only=True,
    ),
    Template(
        "car_rental",
        "Car {code} is reserved for {person} from {date}. Please bring it back to {city} by "
        "{date2}. Without a full tank you pay {amount} more. The warning light is on because of "
        "{reason}; please {step}.",
        [
            ("code", "Which car is reserved?"),
            ("city", "Where must the car be returned?"),
            ("date2", "By what date must the car be returned?"),
            ("step", "What should the driver do about the warning light?"),
        ],
        eval_only=True,
    ),
    Template(
        "shop_hours",
        "From {date} the shop opens at {time} and closes at {time2}. It stays closed on {day} "
        "because of {reason}. On {day2} everything made with {food} is cheaper.",
        [
            ("time", "At what time does the shop open?"),
            ("time2", "At what time does the shop close?"),
            ("day", "On which day is the shop closed?"),
            ("reason", "Why is the shop closed for a day?"),
        ],
        eval_only=True,
    ),
    Template(
        "computer_course",
        "The computer course moves from the {place} to the {place2}. {person} teaches on {day} and "
        "{person2} on {day2}. In the first lesson you learn to {step}.",
        [
            ("place2", "Where is the course now?"),
            ("day", "On which day is the first teacher there?"),
            ("person2", "What is the name of the second teacher?"),
            ("step", "What do you learn in the first lesson?"),
        ],
        eval_only=True,
    ),
)
