"""The answers of two models to the same rows, for answers.jsonl."""

from collections.abc import Iterator, Sequence
from typing import Any

from remote_trainer.evaluation.answers import references_of
from remote_trainer.evaluation.metrics import Measured
from remote_trainer.records import AnsweredRow, EncodedRow, JudgedAnswer


def side_by_side(
    rows: Sequence[EncodedRow], answer_field: str, before: Measured, after: Measured
) -> Iterator[dict[str, Any]]:
    """One line per row, with the keys of `ANSWER_KEYS`."""
    for row, old, new in zip(rows, before.answered, after.answered, strict=True):
        yield {
            "source": row.row.source,
            "prompt": row.row.prompt,
            "references": list(references_of(row, answer_field)),
            "before": _side(old),
            "after": _side(new),
        }


def _side(row: AnsweredRow) -> dict[str, Any]:
    return {"greedy": _answer(row.greedy), "sampled": [_answer(each) for each in row.sampled]}


def _answer(answer: JudgedAnswer) -> dict[str, Any]:
    right = None if answer.right is None else bool(answer.right)
    return {
        "text": answer.text,
        "right": right,
        "tokens": answer.tokens,
        "ended": answer.ended,
    }
