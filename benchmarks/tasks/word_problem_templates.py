"""Word problems with gaps, each with its expression and, independently of it, its solution."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tasks import split

Solution = Callable[..., int]


@dataclass(frozen=True)
class Problem:
    """A story with numbers in {a}, {b}, {c}, {d}, a {person}, a {person2} and {things}."""

    name: str
    story: str
    expression: str
    """In the same gaps, with + - * only; the numbers in the order of the story."""
    solution: Solution
    """The answer from the same numbers, found step by step."""
    ranges: Mapping[str, tuple[int, int]]
    """Smallest and largest value of each number."""
    eval_only: bool = False
    """Never used for training rows."""

    @property
    def steps(self) -> int:
        """Operations until the answer."""
        return sum(self.expression.count(sign) for sign in "+-*")


PEOPLE: Sequence[str] = split(
    "Ada, Ben, Cleo, Dan, Emma, Finn, Gina, Hugo, Iris, Jan, Kim, Leo, Mia, Noah, Oona, "
    "Paul, Ruth, Sam, Tara, Ute, Vic, Will, Yara, Zac"
)
THINGS: Sequence[str] = split(
    "apples, pencils, books, stickers, marbles, cookies, buttons, shells, stamps, "
    "balloons, cards, plums, candles, ribbons, coins, beads"
)

SMALL, MIDDLE, FACTOR = (2, 6), (6, 15), (2, 5)
TERM = (2, 9)


def _sum(*numbers: int) -> int:
    total = 0
    for number in numbers:
        total += number
    return total


def _repeated(times: int, number: int) -> int:
    return _sum(*[number] * times)


ONE_STEP: Sequence[Problem] = (
    Problem(
        "gets_more",
        "{person} has {a} {things}. {person2} gives {person} {b} more {things}. How many {things} "
        "does {person} have now?",
        "{a} + {b}",
        lambda a, b: _sum(a, b),
        {"a": TERM, "b": TERM},
    ),
    Problem(
        "both_together",
        "{person} finds {a} {things}, and {person2} finds {b} {things}. How many {things} do they "
        "find together?",
        "{a} + {b}",
        lambda a, b: _sum(a, b),
        {"a": TERM, "b": TERM},
    ),
    Problem(
        "gives_away",
        "{person} has {a} {things} and gives {b} of them to {person2}. How many {things} does "
        "{person} have left?",
        "{a} - {b}",
        lambda a, b: len(range(b, a)),
        {"a": MIDDLE, "b": SMALL},
    ),
    Problem(
        "lost_some",
        "There were {a} {things} in the box. {person} lost {b} of them. How many {things} are "
        "still in the box?",
        "{a} - {b}",
        lambda a, b: len(range(b, a)),
        {"a": MIDDLE, "b": SMALL},
    ),
    Problem(
        "bags",
        "{person} has {a} bags. There are {b} {things} in each bag. How many {things} does "
        "{person} have?",
        "{a} * {b}",
        lambda a, b: _repeated(a, b),
        {"a": FACTOR, "b": SMALL},
    ),
    Problem(
        "price",
        "One box of {things} costs {b} euros. {person} buys {a} boxes. How many euros does "
        "{person} pay?",
        "{b} * {a}",
        lambda a, b: _repeated(a, b),
        {"a": FACTOR, "b": SMALL},
    ),
    Problem(
        "how_many_more",
        "{person} collected {a} {things}. {person2} collected {b} {things}. How many more {things} "
        "did {person} collect than {person2}?",
        "{a} - {b}",
        lambda a, b: len(range(b, a)),
        {"a": MIDDLE, "b": SMALL},
    ),
    Problem(
        "two_days",
        "{person} sold {a} {things} on Monday and {b} {things} on Tuesday. How many {things} did "
        "{person} sell on the two days?",
        "{a} + {b}",
        lambda a, b: _sum(a, b),
        {"a": TERM, "b": TERM},
        eval_only=True,
    ),
    Problem(
        "bus_empties",
        "{person} drives a bus with {a} people. At the next stop {b} people get off, and nobody "
        "gets on. How many people does {person} drive now?",
        "{a} - {b}",
        lambda a, b: len(range(b, a)),
        {"a": MIDDLE, "b": SMALL},
        eval_only=True,
    ),
    Problem(
        "rows_of_chairs",
        "In the hall {person} puts up {a} rows with {b} chairs in each row. How many chairs are in "
        "the hall?",
        "{a} * {b}",
        lambda a, b: _repeated(a, b),
        {"a": FACTOR, "b": SMALL},
        eval_only=True,
    ),
    Problem(
        "birds_arrive",
        "{person} sees {a} birds in a tree. Then {b} more birds fly to the tree. How many birds "
        "are in the tree now?",
        "{a} + {b}",
        lambda a, b: _sum(a, b),
        {"a": TERM, "b": TERM},
        eval_only=True,
    ),
)

MORE_STEPS: Sequence[Problem] = (
    Problem(
        "gets_and_gives",
        "{person} has {a} {things}, gets {b} more and then gives {c} away. How many {things} does "
        "{person} have now?",
        "{a} + {b} - {c}",
        lambda a, b, c: len(range(c, _sum(a, b))),
        {"a": MIDDLE, "b": SMALL, "c": SMALL},
    ),
    Problem(
        "three_people",
        "{person} has {a} {things}, {person2} has {b} {things}, and their mother has {c} {things}. "
        "How many {things} do they have together?",
        "{a} + {b} + {c}",
        lambda a, b, c: _sum(a, b, c),
        {"a": SMALL, "b": SMALL, "c": SMALL},
    ),
    Problem(
        "bags_and_single",
        "{person} buys {a} bags with {b} {things} each and {c} single {things}. How many {things} "
        "does {person} buy?",
        "{a} * {b} + {c}",
        lambda a, b, c: _sum(_repeated(a, b), c),
        {"a": (2, 3), "b": (2, 4), "c": SMALL},
    ),
    Problem(
        "change_twice",
        "{person} has {a} euros. A book costs {b} euros and a pen costs {c} euros. {person} buys "
        "both. How many euros does {person} have left?",
        "{a} - {b} - {c}",
        lambda a, b, c: len(range(_sum(b, c), a)),
        {"a": (11, 15), "b": SMALL, "c": SMALL},
    ),
    Problem(
        "party",
        "For a party {person} bakes {a} plates of {b} cookies. The guests eat {c} cookies, and "
        "then {person2} brings {d} more. How many cookies are there now?",
        "{a} * {b} - {c} + {d}",
        lambda a, b, c, d: _sum(len(range(c, _repeated(a, b))), d),
        {"a": (2, 3), "b": (3, 5), "c": SMALL, "d": SMALL},
    ),
    Problem(
        "bus_stops",
        "{person} drives a bus with {a} people. At the first stop {b} people get off and {c} "
        "people get on. How many people does {person} drive now?",
        "{a} - {b} + {c}",
        lambda a, b, c: _sum(len(range(b, a)), c),
        {"a": MIDDLE, "b": SMALL, "c": SMALL},
        eval_only=True,
    ),
    Problem(
        "boxes_minus",
        "A shop has {a} boxes with {b} {things} in each. {person} buys {c} {things}. How many "
        "{things} are left in the shop?",
        "{a} * {b} - {c}",
        lambda a, b, c: len(range(c, _repeated(a, b))),
        {"a": (2, 3), "b": (3, 5), "c": SMALL},
        eval_only=True,
    ),
    Problem(
        "savings",
        "{person} saves {b} euros a week for {a} weeks, gets {c} euros as a present and spends {d} "
        "euros. How many euros does {person} have?",
        "{b} * {a} + {c} - {d}",
        lambda a, b, c, d: len(range(d, _sum(_repeated(a, b), c))),
        {"a": (2, 3), "b": (2, 4), "c": SMALL, "d": SMALL},
        eval_only=True,
    ),
)
