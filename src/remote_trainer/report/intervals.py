"""Shares before and after training with their intervals, as places on a scale from 0 to 100 %."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remote_trainer.metrics import EVALUATION_METRICS, Metric
from remote_trainer.report.numbers import written


@dataclass(frozen=True)
class Interval:
    """Places in per cent of the width."""

    when: str
    """before or after."""
    point: float
    low: float
    high: float
    text: str
    """The value and its interval."""

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Scale:
    """One metric: an interval for each side that was measured."""

    title: str
    intervals: list[Interval]


def interval_scales(evaluation: Mapping[str, Any]) -> list[Scale]:
    """One scale for each share that has an interval."""
    scales = []
    for metric in EVALUATION_METRICS.values():
        sides = [(when, evaluation[when] or {}) for when in ("before", "after")]
        known = [_interval(metric, when, side) for when, side in sides]
        found = [each for each in known if each is not None]
        scales += [Scale(metric.title, found)] if metric.share and found else []
    return scales


def _interval(metric: Metric, when: str, measured: Mapping[str, Any]) -> Interval | None:
    value, bounds = measured.get(metric.key), (measured.get("ci95") or {}).get(metric.key)
    if value is None or not bounds:
        return None
    low, high = (min(1.0, max(0.0, bound)) for bound in bounds)
    text = f"{written(metric, value)} ({written(metric, low)} to {written(metric, high)})"
    point, left, right = (round(100 * each, 2) for each in (value, low, high))
    return Interval(when, point, left, right, text)
