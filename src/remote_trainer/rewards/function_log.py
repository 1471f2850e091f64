"""What reward functions of the user's write down beside their rewards, by TRL's two calls."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, SupportsFloat, SupportsIndex


@dataclass
class FunctionLog:
    """Numbers and columns of one batch of completions."""

    metrics: dict[str, list[float]] = field(default_factory=dict)
    """By name, every number that was told."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """By name, one value per completion."""

    def log_metric(self, name: str, value: Any) -> None:
        """TRL's: note a number; those of a name are averaged. TypeError for anything else."""
        number = as_number(value)
        if number is None:
            raise TypeError(f"log_metric takes a number, and {name!r} got None")
        self.metrics.setdefault(str(name), []).append(number)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """TRL's: note a value for each completion, all at once or in several calls."""
        self.columns.setdefault(str(column), []).extend(values)

    def join(self, other: "FunctionLog", name: str) -> None:
        """Take in what another function (``name``) noted; a column that is there already gets the
        function's name in front."""
        for metric, numbers in other.metrics.items():
            self.metrics.setdefault(metric, []).extend(numbers)
        for column, values in other.columns.items():
            self.columns[f"{name}/{column}" if column in self.columns else column] = values

    def forward(
        self,
        log_metric: Callable[[str, float], None] | None,
        log_extra: Callable[[str, list[Any]], None] | None,
        prefix: str = "",
    ) -> None:
        """Tell a trainer all of it, with ``prefix`` in front of each name."""
        for name, numbers in self.metrics.items() if log_metric else ():
            for number in numbers:
                log_metric(prefix + name, number)  # type: ignore[misc]
        for column, values in self.columns.items() if log_extra else ():
            log_extra(prefix + column, list(values))  # type: ignore[misc]

    def means(self) -> dict[str, float | None]:
        """Each number of `metrics`; None where none is finite."""
        finite = {name: list(filter(math.isfinite, told)) for name, told in self.metrics.items()}
        return {name: fmean(numbers) if numbers else None for name, numbers in finite.items()}

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The columns as one mapping per completion, of values that JSON can hold."""
        return [{name: _plain(v[i]) for name, v in self.columns.items()} for i in range(count)]


def together(logs: Sequence[FunctionLog]) -> FunctionLog:
    """The numbers of several processes; columns are left out."""
    joined = FunctionLog()
    for log in logs:
        for metric, numbers in log.metrics.items():
            joined.metrics.setdefault(metric, []).extend(numbers)
    return joined


def as_number(value: Any) -> float | None:
    """A number, also one in a tensor or an array of one element; None stays None.

    Raises TypeError for what is no number.
    """
    if callable(item := getattr(value, "item", None)):
        value = item()
    if value is None:
        return None
    if not isinstance(value, SupportsFloat | SupportsIndex):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _plain(value: Any) -> Any:
    """As JSON can hold it: arrays as lists, numbers that are none as null, all else as text."""
    if callable(tolist := getattr(value, "tolist", None)):
        value = tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else str(value)
