"""Which completions are right: final answers, numbers, and rivals of a kind."""

import json
import re
from pathlib import Path

import pytest

from remote_trainer.evaluation.accepted import Accepted
from remote_trainer.records import EncodedRow, Row

DATA = Path(__file__).parents[3] / "data"


def row(answer: str | list[str], kind: str | None = None, pattern: str | None = None) -> EncodedRow:
    fields = {"answer": answer} | ({"kind": kind} if kind else {})
    return EncodedRow(Row("q", fields, "f:1", answer_pattern=pattern), (1,), "q")


def right(text: str, answer: str, pattern: str | None = None) -> bool:
    """Among rows of its kind whose answers are 4, 15, Rome and New York."""
    others = [row(each, "k") for each in ("4", "15", "Rome", "New York")]
    return Accepted([row(answer, "k", pattern), *others], "answer").is_right(0, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", True),
        ("4 times 3 is 12.", True),
        ("4 x 3 = 12", True),
        ("First 15, then 3 less: 12", True),
        ("4 times 3 is 15, not 12", True),  # the last number counts, whatever is said of it
        ("12, not 15", False),
        ("12.0", True),
        ("112", False),
        ("12 - 4", False),
        ("twelve", False),
        ("", False),
        (r"\boxed{12} because 12 = 3 x 4", True),
        ("12\n#### 15", False),
        ("The answer is 12.\nBye, see you at 15", True),
        ("<think>15? no, 4</think>12", True),
        ("<think>12</think>", False),
        ("<think>12", False),
    ],
)
def test_a_number_is_judged_by_the_last_one(text: str, expected: bool) -> None:
    assert right(text, "12") is expected


def test_thousands_separators_do_not_matter() -> None:
    assert right("It is 1,234.", "1234")
    assert right("It is 1234", "1,234")
    assert not right("It is 1,234", "1,235")
    accepted = Accepted([row("1,234")], "answer")
    assert accepted.is_exact(0, "1234.")
    assert not accepted.is_exact(0, "It is 1234.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is Paris.", True),
        ("Paris or Rome", False),
        ("Rome? No. The answer is Paris.", True),
        ("The answer is Paris, not Rome", False),
        (r"Rome is in Italy, so \boxed{\text{Paris}}", True),
        ("<think>Rome, Paris</think>Paris", True),
        ("<think>Paris</think>Lyon", False),
        ("<think>Paris", False),
    ],
)
def test_words_are_looked_for_in_the_final_answer(text: str, expected: bool) -> None:
    assert right(text, "Paris") is expected


def test_the_pattern_of_the_row_finds_the_answer() -> None:
    assert right("A: Rome. A: Paris! Rome", "Paris", r"A: (\w+)")
    assert not right("A: Paris. A: Rome! Paris", "Paris", r"A: (\w+)")
    accepted = Accepted([row("Paris", pattern=r"A: (\w+)")], "answer")
    assert accepted.is_exact(0, "so\nA: paris")
    assert not accepted.is_exact(0, "so paris")


def test_of_several_answers_each_is_judged_by_its_kind() -> None:
    accepted = Accepted([row(["12", "twelve", "a dozen"], "k"), row("4", "k")], "answer")
    assert accepted.is_right(0, "4 times 3 is 12")
    assert accepted.is_right(0, "It is a dozen.")
    assert not accepted.is_right(0, "It is a dozen, or 4.")  # a rival of the words


def test_the_shipped_rows_are_judged_as_they_should_be() -> None:
    """Every row, by sentences made for it; numbers of a question are no rivals."""
    rows = [json.loads(line) for line in (DATA / "eval_supervised.jsonl").read_text().splitlines()]
    accepted = Accepted([row(each["answer"], each["kind"]) for each in rows], "answer")
    numbers = 0
    for place, each in enumerate(rows):
        answer = each["answer"]
        other = next(
            o["answer"] for o in rows if o["kind"] == each["kind"] and o["answer"] != answer
        )
        for text in (answer, f"It is {answer}.", f"The answer is {answer}.", answer.upper()):
            assert accepted.is_right(place, text), (each, text)
        for text in (other, f"It is {other}.", "", "I do not know", f"{answer}, not {other}"):
            assert not accepted.is_right(place, text), (each, text)
        if answer.isdecimal():
            numbers += 1
            named = re.findall(r"\d+", each["prompt"])
            assert accepted.is_right(place, f"{', '.join(named)}: that makes {answer}.")
            assert not accepted.is_right(place, f"{answer}1")
        else:
            assert not accepted.is_right(place, f"{other} or {answer}"), each
    assert numbers == 45  # additions, subtractions, multiplications and how_many
