"""What is known about a number of metrics.jsonl or eval.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from remote_trainer.records import AnsweredRow, Rollout

SHARE = "share, 0 to 1"
NATS = "nats per token"
TOKENS = "tokens"
SECONDS = "seconds"


@dataclass(frozen=True)
class Metric:
    """A number and what people read about it. Shares are written as percentages."""

    key: str
    title: str
    note: str
    """What it is in half a sentence, as the report says it."""
    unit: str = ""
    meaning: str = ""
    """The same for pages of docs/, where that says more; see `explained`."""

    @property
    def share(self) -> bool:
        return self.unit == SHARE

    @property
    def explained(self) -> str:
        return self.meaning or self.note


@dataclass(frozen=True, kw_only=True)
class LoggedMetric(Metric):
    """A key of metrics.jsonl."""

    of: Callable[[Rollout], Any] | None = None
    """Computes it from the completions of an update, and is not asked where there are none. None:
    the trainer, the guard or TRL knows it."""
    from_trl: bool = False
    """Taken from what TRL logs, under the same name."""
    window: Literal["mean", "last", "sum", "list"] = "mean"
    """What a line holds that stands for several updates (`training.logging_steps`)."""
    row: float | None = None
    """Place in the report's table of training and in the terminal; None: in neither."""
    chart: Literal["alone", "repetition", "phase", "overlaid"] | None = None
    """In the report: a chart of its own; a line of one of two shared charts; or only where
    several runs are compared."""
    compared: bool = False
    """Has a row where several runs are compared."""
    brief: str = ""
    """How the terminal tells it after each update, with braces for the number; empty: not."""

    def __post_init__(self) -> None:
        if self.of is not None and self.window != "mean":
            raise ValueError(f"{self.key}: what is computed from completions is averaged")


@dataclass(frozen=True, kw_only=True)
class EvaluationMetric(Metric):
    """A key of eval.json, computed by one of two functions; None where it cannot be, never 0."""

    of_row: Callable[[AnsweredRow], float | None] | None = None
    """Of one row. The metric is the mean over the rows that have a value, with an interval."""
    of_rows: Callable[[Sequence[AnsweredRow]], float | None] | None = None
    """Of all rows together."""
    printed: bool = False
    """The terminal shows it."""

    def __post_init__(self) -> None:
        if (self.of_row is None) == (self.of_rows is None):
            raise ValueError(f"{self.key}: write either of_row or of_rows")
