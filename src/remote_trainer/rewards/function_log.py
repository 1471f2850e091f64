"""What user reward functions log with TRL's ``log_metric`` and ``log_extra``."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, SupportsFloat, SupportsIndex


@dataclass
class FunctionLog:
    """Logged metrics and columns of one batch of completions."""

    metrics: dict[str, list[float]] = field(default_factory=dict)
    """Metric name -> all numbers logged for it."""
    columns: dict[str, list[Any]] = field(default_factory=dict)
    """Column name -> one value per completion."""

    def log_metric(self, name: str, value: Any) -> None:
        """TRL's: log a number; those of a name are averaged. TypeError for anything else."""
        number = as_number(value)
        if number is None:
            raise TypeError(f"log_metric needs a number, but {name!r} is None")
        self.metrics.setdefault(str(name), []).append(number)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """TRL's: log one value per completion, in one or several calls."""
        self.columns.setdefault(str(column), []).extend(values)

    def join(self, other: "FunctionLog", name: str) -> None:
        """Add the log of the function ``name``, whose column gets the prefix ``name/`` if a column
        of that name already exists."""
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
        """Pass everything to a trainer's log functions, with ``prefix`` before each name."""
        for name, numbers in self.metrics.items() if log_metric else ():
            for number in numbers:
                log_metric(prefix + name, number)  # type: ignore[misc]
        for column, values in self.columns.items() if log_extra else ():
            log_extra(prefix + column, list(values))  # type: ignore[misc]

    def means(self) -> dict[str, float | None]:
        """Mean of each metric's finite numbers; None if there are none."""
        finite = {name: list(filter(math.isfinite, logs)) for name, logs in self.metrics.items()}
        return {name: fmean(numbers) if numbers else None for name, numbers in finite.items()}

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The columns as one JSON-serialisable mapping per completion."""
        return [{name: _jsonable(v[i]) for name, v in self.columns.items()} for i in range(count)]


def together(logs: Sequence[FunctionLog]) -> FunctionLog:
    """The numbers of several processes; columns are left out."""
    joined = FunctionLog()
    for log in logs:
        for metric, numbers in log.metrics.items():
            joined.metrics.setdefault(metric, []).extend(numbers)
    return joined


def as_number(value: Any) -> float | None:
    """A number as float, also from a tensor or array of one element; None stays None.

    Raises TypeError for anything else.
    """
    if callable(item := getattr(value, "item", None)):
        value = item()
    if value is None:
        return None
    if not isinstance(value, SupportsFloat | SupportsIndex):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _jsonable(value: Any) -> Any:
    """``value`` for JSON: arrays as lists, NaN and infinity as null, unknown types as text."""
    if callable(tolist := getattr(value, "tolist", None)):
        value = tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    return [_jsonable(v) for v in value] if isinstance(value, list | tuple) else str(value)
