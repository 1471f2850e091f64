"""Facts about a metric of metrics.jsonl or eval.json."""

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
    """A metric and its texts for users. Shares are shown as percentages."""

    key: str
    title: str
    note: str
    """A short description for the report."""
    unit: str = ""
    meaning: str = ""
    """A longer description for docs/; see `explained`."""

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
    """Computes it from the completions of an update; not called without completions. None: it
    comes from the trainer, the guard or TRL."""
    from_trl: bool = False
    """Taken from what TRL logs, under the same name."""
    window: Literal["mean", "last", "sum", "list"] = "mean"
    """How a line aggregates several updates (`training.logging_steps`)."""
    row: float | None = None
    """Position in the report's training table and in the terminal; None: in neither."""
    chart: Literal["alone", "repetition", "phase", "overlaid"] | None = None
    """In the report: a separate chart; a line in one of two shared charts; or only in comparisons
    of runs."""
    compared: bool = False
    """Has a row in comparisons of runs."""
    brief: str = ""
    """Format for the terminal after each update, with braces for the number; empty: not shown."""

    def __post_init__(self) -> None:
        if self.of is not None and self.window != "mean":
            raise ValueError(f"{self.key}: metrics computed from completions must be averaged")


@dataclass(frozen=True, kw_only=True)
class EvaluationMetric(Metric):
    """A key of eval.json, of one of three kinds; None where it cannot be computed, never 0."""

    of_row: Callable[[AnsweredRow], float | None] | None = None
    """Of one row. The metric is the mean over the rows that have a value, with an interval."""
    of_rows: Callable[[Sequence[AnsweredRow]], float | None] | None = None
    """Of all rows together."""
    of_model: bool = False
    """Measured apart from the rows; see `measure`."""
    printed: bool = False
    """The terminal shows it."""

    def __post_init__(self) -> None:
        if (self.of_row is not None) + (self.of_rows is not None) + self.of_model != 1:
            raise ValueError(f"{self.key}: write one of of_row, of_rows and of_model")
