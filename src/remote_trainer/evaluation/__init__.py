"""Held-out rows before and after: what the model answers, and whether that is right."""

from remote_trainer.evaluation.answers import Answers, collect_answers, length_limit, some_of
from remote_trainer.evaluation.metrics import (
    Measured,
    compare,
    measure,
    not_measured,
    with_cut_share,
)

__all__ = [
    "Answers",
    "Measured",
    "collect_answers",
    "compare",
    "length_limit",
    "measure",
    "not_measured",
    "some_of",
    "with_cut_share",
]
