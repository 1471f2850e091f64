"""Final answers in texts, by hand: behind the reasoning, marked, named, or the last number."""

from decimal import Decimal

import pytest

from remote_trainer.final_answer import (
    behind_thinking,
    final_answer,
    last_number,
    matched,
    number_of,
    same_number,
    stated_answer,
)


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("Paris", "Paris"),
        ("<think>Rome?</think>Paris", "Paris"),
        ("<think>a</think>b<think>c</think> d", " d"),
        ("no opening tag</think>Paris", "Paris"),
        ("<think>Paris", ""),
        ("<think>a</think>Paris<think>b", ""),
        ("[THINK]Rome?[/THINK]Paris", "Paris"),
        ("", ""),
    ],
)
def test_only_what_stands_behind_the_last_thinking_block_counts(text: str, behind: str) -> None:
    assert behind_thinking(text) == behind


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{12}, or rather \boxed{42}.", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{New Delhi}}", "New Delhi"),
        (r"\boxed{12", r"\boxed{12"),
        (r"\boxed{ } and that is it", r"\boxed{ } and that is it"),
        ("3 + 4 = 7\n#### 7\n", "7"),
        ("7 #### 1,234", "1,234"),
        ("#### Step 1\nadd", "#### Step 1\nadd"),
        ("#### Step 1\nadd\n#### 7", "7"),
        ("\\boxed{5}\n#### 7", "5"),
        ("<think>#### 5</think>#### 7", "7"),
        ("It is 7.", "It is 7."),
        ("The answer is 7.", "The answer is 7."),
    ],
)
def test_a_text_may_mark_its_answer(text: str, answer: str) -> None:
    assert stated_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Rome? No, the answer is Paris.", "Paris."),
        ("The answer is Rome. No. The ANSWER IS Paris, I think.\nBye.", "Paris, I think."),
        ("**Answer:** Paris\nRome is in Italy.", "Paris"),
        ("The answer is:\n\n42", "42"),
        ("Answers are hard. Paris", "Answers are hard. Paris"),
        ("Paris is what the answer is", "Paris is what the answer is"),
        ("The answer is 5.\n#### 7", "7"),
        ("<think>the answer is 4</think>5", "5"),
        ("<think>the answer is 4", ""),
    ],
)
def test_a_text_may_name_its_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


def test_the_pattern_comes_first_and_its_last_match_counts() -> None:
    text = "A: 1\nA: 2\n#### 7"
    assert final_answer(text, pattern=r"A: (\d)") == "2"
    assert stated_answer(text, pattern=r"A: (\d)") == "2"
    assert final_answer(text, pattern=r"B: (\d)") == "7"
    assert matched(text, r"A: (\d)") == "2"
    assert matched(text, r"B: (\d)") == matched(text, None) == text
    assert final_answer("<think>A: 1</think>A: 2", pattern=r"A: (\d)") == "2"
    assert final_answer("<think>A: 1", pattern=r"A: (\d)") == ""


def test_a_reference_with_a_mark_is_compared_with_everything() -> None:
    text = "4 + 3 = 7\n#### 7"
    assert stated_answer(text, "4 + 3 = 7\n#### 7") == text
    assert final_answer("Well, the answer is 7", "the answer is 7") == "Well, the answer is 7"
    assert stated_answer(text, "#### 7", r"#### (.+)") == "7"


NUMBERS = [
    ("12", "12"),
    ("12.", "12"),
    ("-5", "-5"),
    ("+5", "5"),
    ("\N{MINUS SIGN}5", "-5"),
    ("1,234", "1234"),
    ("1,234,567.50", "1234567.5"),
    (".5", "0.5"),
    ("$3.20", "3.2"),
    ("50%", "50"),
    ("1e+20", "100000000000000000000"),
    ("\N{FULLWIDTH DIGIT TWO}", "2"),
    ("๔๒", "42"),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_a_number_is_read_by_its_value(text: str, number: str) -> None:
    assert number_of(text) == number_of(f" {text} ") == Decimal(number)
    assert same_number(text, number)
    assert last_number(f"7, so it is {text} now") == Decimal(number)


@pytest.mark.parametrize(
    "text", ["", "Paris", "3 apples", "1/2", "12:30", "1,23", "3 4", "x5", "-"]
)
def test_other_texts_are_no_numbers(text: str) -> None:
    assert number_of(text) is None
    assert not same_number(text, text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4 times 3 is 12.", "12"),
        ("4 times 3 is 15, not 12", "12"),
        ("10-5", "5"),
        ("= -5", "-5"),
        ("at 3, -4", "-4"),
        ("1,2,3", "3"),
        ("7 grams of CO2", "7"),
        ("7 (version 3.14.15)", "3.14"),
        ("It is 5... Yes.", "5"),
        ("是42。", "42"),
        ("42岁", "42"),
        ("nothing", None),
        ("twelve", None),
        ("B12", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: str | None) -> None:
    assert last_number(text) == (None if number is None else Decimal(number))
