"""Paths into rows: what they reach, and which missing part an error names."""

from typing import Any

import pytest

from remote_trainer.field_paths import NoValueError, find, value_at

ROW: dict[str, Any] = {
    "answers": {"text": ["Oslo", "Kristiania"], "none": [], "pair": ({"id": 7},)},
    "answers.text.0": "literal",
    "plain": "text",
    "number": 3,
    "null": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plain", "text"),
        ("answers.text.1", "Kristiania"),
        ("answers.text", ["Oslo", "Kristiania"]),
        ("answers.pair.0.id", 7),
        ("answers.text.0", "literal"),  # a key of that whole name comes first
        ("null", None),
    ],
)
def test_a_path_reaches_its_value(path: str, value: Any) -> None:
    assert value_at(ROW, path) == find(ROW, path) == value


@pytest.mark.parametrize(
    ("path", "message", "fits"),
    [
        ("gone", "'gone' is missing", True),
        ("answers.label", "'answers' has no key 'label'", True),
        ("answers.none.0", "list 'answers.none' is empty", True),
        ("answers.text.2", "list 'answers.text' has no item 2 (the last one is 1)", True),
        ("null.text", "'null' is null", True),
        ("answers.text.first", "'answers.text' is a list; write an index such as 0, not", False),
        ("answers.text.-1", "'answers.text' is a list; write an index such as 0, not '-1'", False),
        ("plain.0", "'plain' is a str, which has no '0'", False),
        ("number.text", "'number' is a int, which has no 'text'", False),
        ("answers..text", "'answers' has no key ''", True),
    ],
)
def test_the_missing_part_is_named(path: str, message: str, fits: bool) -> None:
    with pytest.raises(NoValueError) as caught:
        value_at(ROW, path)
    assert str(caught.value).startswith(message)
    assert caught.value.fits is fits
    assert find(ROW, path) is None
