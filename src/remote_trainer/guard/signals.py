"""Signals: numbers that alarms watch, computed from logged updates or from probes.

What a model did before training is not harm done by training. So signals compare with the start of
the run: with the first lines of metrics.jsonl, or with the first probe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, stdev
from typing import Any, Literal

from remote_trainer.means import mean_of_known

BASELINE_LINES = 5
WINDOW_LINES = 5
LEAST_OF_MEDIAN = 3
LEAST_DEPENDENCE = 0.1
"""Nats per token; a model that depends on its prompts less has little to lose."""

Line = Mapping[str, Any]
Lines = Sequence[Line]
Source = Literal["updates", "probes"]

_FIRST = f"the first {BASELINE_LINES} updates"


@dataclass(frozen=True)
class Signal:
    """A number computed from logged lines; None where they do not tell."""

    of: Source
    key: str
    """Of metrics.jsonl, or of a probe."""
    now: Callable[[Lines, Lines], float | None]
    """From the first and the last lines of metrics.jsonl (`BASELINE_LINES` and `WINDOW_LINES`), or
    from the first probe and all later ones. A probe also holds ``reward``, the mean over the
    updates since the one before."""
    measured: str
    """What it computes, as docs/guard.md says it."""

    def at_start(self, first: Lines) -> float | None:
        """The number at the start of the run, compared with nothing."""
        return _mean(first, self.key)


def rise(key: str, usual: float = 0.0) -> Signal:
    """Mean of the key, minus what was over ``usual`` at the start, 0 or more."""
    start = f"what was over {usual:g}" if usual else "the mean"
    return _of_means(
        key,
        lambda first, now: _above(first, now, usual),
        f"`{key}`, minus {start} in {_FIRST}",
    )


def difference(key: str) -> Signal:
    """Mean of the key minus its mean at the start."""
    return _of_means(
        key,
        lambda first, now: None if first is None or now is None else now - first,
        f"difference of `{key}` to {_FIRST}",
    )


def ratio(key: str, least: float = 0.0) -> Signal:
    """Mean of the key over its mean at the start, which counts as ``least`` at the least: from a
    value near 0 everything is growth."""

    def compare(first: float | None, now: float | None) -> float | None:
        if first is None or now is None or max(first, least) <= 0:
            return None
        return now / max(first, least)

    floor = f", where less than {least:g} counts as {least:g}" if least else ""
    return _of_means(key, compare, f"ratio of `{key}` to {_FIRST}{floor}")


def scaled(key: str, usual: float) -> Signal:
    """Mean of the key; if it started under ``usual``, scaled as if it had started there."""

    def compare(first: float | None, now: float | None) -> float | None:
        if first is None or now is None or first >= usual:
            return now
        return usual * now / first if first > 0 else usual

    under = f"if it was under {usual:g} in {_FIRST}, scaled as if it had been {usual:g}"
    return _of_means(key, compare, f"`{key}`; {under}")


def rise_of_median(key: str) -> Signal:
    """Median of at least three values, minus the least value of the start. For estimates with heavy
    tails: one unlikely token makes a mean of anything."""

    def now(first: Lines, latest: Lines) -> float | None:
        values = _known(latest, key)
        return _above(
            min(_known(first, key), default=None),
            median(values) if len(values) >= LEAST_OF_MEDIAN else None,
        )

    return Signal("updates", key, now, f"median of `{key}`, minus the least of {_FIRST}")


def rise_of_probe(key: str, usual: float) -> Signal:
    """The key of the newest probe, minus what was over ``usual`` at the first one, 0 or more."""
    return Signal(
        "probes",
        key,
        lambda first, later: _above(first[0][key], later[-1][key], usual),
        f"`{key}` of the probe, minus what was over {usual:g} at the first probe",
    )


def loss(key: str) -> Signal:
    """How much the rows of the probe lost since the first probe; see `_loss`."""
    return Signal(
        "probes",
        key,
        lambda first, later: _loss(first[0], later[-1], key),
        f"loss of `{key}` since the first probe",
    )


def relative_loss(key: str) -> Signal:
    """The same as a share of what there was; None where that was not clearly above 0."""

    def now(first: Lines, later: Lines) -> float | None:
        known = [value for value in first[0]["per_row"][key] if value is not None]
        lost = _loss(first[0], later[-1], key)
        if lost is None:
            return None
        least = fmean(known) - 2 * stdev(known) / sqrt(len(known))
        return lost / float(fmean(known)) if least > LEAST_DEPENDENCE else None

    return Signal("probes", key, now, f"loss of `{key}` since the first probe, as a share of it")


def loss_while_reward_rose(key: str) -> Signal:
    """How much the rows lost while the reward rose over that of the first probe; 0 where it did
    not."""

    def now(first: Lines, later: Lines) -> float | None:
        lost = _loss(first[0], later[-1], key)
        rewards = _known([*first, *later], "reward")
        if lost is None or len(rewards) < 2:
            return None
        return lost if rewards[-1] > rewards[0] else 0.0

    return Signal(
        "probes", key, now, f"loss of `{key}` since the first probe, if the reward rose meanwhile"
    )


def _of_means(
    key: str, compare: Callable[[float | None, float | None], float | None], measured: str
) -> Signal:
    return Signal(
        "updates",
        key,
        lambda first, latest: compare(_mean(first, key), _mean(latest, key)),
        measured,
    )


def _known(lines: Lines, key: str) -> list[float]:
    return [line[key] for line in lines if line.get(key) is not None]


def _mean(lines: Lines, key: str) -> float | None:
    return mean_of_known(_known(lines, key))


def _above(first: float | None, now: float | None, usual: float = 0.0) -> float | None:
    """``now`` without what was over ``usual`` at the start, 0 or more."""
    return None if now is None else max(0.0, now - max(0.0, (first or 0.0) - usual))


def _loss(before: Line, now: Line, key: str) -> float | None:
    """Mean loss of the rows between two probes less one standard error, 0 or more: a few rows that
    change by chance are no loss."""
    if key not in before["per_row"]:  # the run began with a version that did not measure it
        return None
    pairs = zip(before["per_row"][key], now["per_row"][key], strict=True)
    changes = [a - b for a, b in pairs if a is not None and b is not None]
    if len(changes) < 2:
        return None
    least: float = fmean(changes) - stdev(changes) / sqrt(len(changes))
    return max(0.0, least)
