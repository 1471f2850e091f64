"""Lines of answers.jsonl, by hand."""

import pytest

from remote_trainer.evaluation.metrics import Measured
from remote_trainer.evaluation.side_by_side import side_by_side
from remote_trainer.metrics import ANSWER_KEYS
from remote_trainer.records import AnsweredRow, EncodedRow, JudgedAnswer, Row


def side(*answers: JudgedAnswer) -> Measured:
    rows = [AnsweredRow("q", each, [each, each], None, ()) for each in answers]
    return Measured({}, {}, rows, 16)


def test_a_line_holds_both_sides() -> None:
    rows = [
        EncodedRow(Row("2 + 3?", {"gold": ["5", "five"]}, "f:1"), (1,), "q"),
        EncodedRow(Row([{"role": "user", "content": "Hi"}], {}, "f:2"), (1,), "q"),
    ]
    before = side(JudgedAnswer("6", 2, True, 0.0, 0.0), JudgedAnswer("Hello", 3, False, None, None))
    after = side(JudgedAnswer("5", 2, True, 1.0, 1.0), JudgedAnswer("Hey", 2, True, None, None))
    first, second = side_by_side(rows, "gold", before, after)
    assert list(first) == list(second) == list(ANSWER_KEYS)
    wrong = {"text": "6", "right": False, "tokens": 2, "ended": True}
    right = {"text": "5", "right": True, "tokens": 2, "ended": True}
    assert first == {
        "source": "f:1",
        "prompt": "2 + 3?",
        "references": ["5", "five"],
        "before": {"greedy": wrong, "sampled": [wrong, wrong]},
        "after": {"greedy": right, "sampled": [right, right]},
    }
    assert second["prompt"] == [{"role": "user", "content": "Hi"}]
    assert second["references"] == []
    assert second["before"]["greedy"] == {
        "text": "Hello", "right": None, "tokens": 3, "ended": False,
    }  # fmt: skip


def test_both_sides_have_every_row() -> None:
    rows = [EncodedRow(Row("q", {}, "f:1"), (1,), "q")]
    with pytest.raises(ValueError, match="shorter"):
        list(side_by_side(rows, "answer", side(), side()))
