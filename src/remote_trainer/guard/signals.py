"""Logged numbers -> the values alarms look at: relative to the start, smoothed over updates."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, median, stdev
from typing import Any

from remote_trainer.means import mean_of_known

BASELINE_LINES = 5
WINDOW_LINES = 5
LEAST_OF_MEDIAN = 3
LEAST_DEPENDENCE = 0.1
"""Nats a token; a model that depends on its prompts less has little to lose."""
LEAST_LENGTH = 8
"""Tokens; completions that begin shorter have room to grow."""
LEAST_ENTROPY = 0.2
"""Nats a token; a model that begins with less is held against its own beginning."""
USUAL_SHARE, USUALLY_FILTERED = 0.05, 0.5
"""Of short or equal answers, and of groups without signal: what a sound model may begin with."""
Line = Mapping[str, Any]
Signals = dict[str, float | None]


def update_signals(baseline: Sequence[Line], window: Sequence[Line]) -> Signals:
    """Of the batches of training: means over ``window`` against means over ``baseline`` (of KL:
    the median against the least).

    What the model did in its first updates is no harm of training: what was over
    the usual then is taken off a share, and a number that began beyond the usual counts against its
    beginning. Before the
    baseline is complete, changes are None and everything else is taken as it is.
    """
    now = _means(window)
    start = _means(baseline) if len(baseline) == BASELINE_LINES else dict.fromkeys(now)
    kl = [line["kl"] for line in baseline if line.get("kl") is not None]
    return {
        "short_share": _rise(now["short_share"], start["short_share"], USUAL_SHARE),
        "length_to_reference": _kept(now["length_to_reference"], start["length_to_reference"], 1.0),
        "length_growth": _ratio(
            now["completion_tokens_mean"], start["completion_tokens_mean"], LEAST_LENGTH
        ),
        "duplicate_share": _rise(now["duplicate_share"], start["duplicate_share"], USUAL_SHARE),
        "distinct_3_kept": _ratio(now["distinct_3"], start["distinct_3"]),
        "loop_share": _rise(now["loop_share"], start["loop_share"]),
        "clipped_rise": _difference(now["clipped_share"], start["clipped_share"]),
        "entropy_growth": _ratio(now["entropy"], start["entropy"], LEAST_ENTROPY),
        "entropy": _kept(now["entropy"], start["entropy"], LEAST_ENTROPY),
        "kl": _rise(now["kl"], min(kl, default=None)),
        "filtered_share": _rise(now["filtered_share"], start["filtered_share"], USUALLY_FILTERED),
    }


def probe_signals(probes: Sequence[Line]) -> Signals:
    """Of the newest probe, against the first. Each probe also holds ``reward``, the mean over the
    updates since the one before.

    Losses are means over rows less one standard error, so that a few rows that change by chance
    are no loss.
    """
    first, now = probes[0], probes[-1]
    return {
        "probe_accuracy_lost": _lost(first, now, "accuracy"),
        "probe_likelihood_lost": _lost(first, now, "answer_likelihood"),
        "probe_fluency_lost": _lost(first, now, "fluency"),
        "probe_duplicate_share": _rise(
            now["duplicate_share"], first["duplicate_share"], USUAL_SHARE
        ),
        "prompt_dependence_lost": _share_lost(first, now, "prompt_dependence"),
        "reward_up_probe_down": _parting(probes),
    }


def start_signals(probes: Sequence[Line], baseline: Sequence[Line]) -> Signals:
    """What the alarms that know no change would say of the start itself: of the first probe, taken
    before training, and of a complete baseline."""
    start = _means(baseline) if len(baseline) == BASELINE_LINES else {}
    return {
        "probe_duplicate_share": probes[0]["duplicate_share"] if probes else None,
        **{key: start.get(key) for key in _AT_START},
    }


_AT_START = (
    "short_share",
    "length_to_reference",
    "loop_share",
    "entropy",
    "filtered_share",
)

_USED = (
    "short_share",
    "length_to_reference",
    "completion_tokens_mean",
    "duplicate_share",
    "distinct_3",
    "loop_share",
    "clipped_share",
    "entropy",
    "kl",
    "filtered_share",
)


def _means(lines: Sequence[Line]) -> Signals:
    means: Signals = {}
    for key in _USED:
        known = [line[key] for line in lines if line.get(key) is not None]
        # KL is estimated by exponentials: one unlikely token makes a mean of anything.
        if key == "kl":
            means[key] = median(known) if len(known) >= LEAST_OF_MEDIAN else None
        else:
            means[key] = mean_of_known(known)
    return means


def _lost(before: Line, now: Line, key: str) -> float | None:
    """What rows lost between two probes, at least: mean less one standard error, 0 or more."""
    pairs = zip(before["per_row"][key], now["per_row"][key], strict=True)
    changes = [a - b for a, b in pairs if a is not None and b is not None]
    if len(changes) < 2:
        return None
    least: float = fmean(changes) - stdev(changes) / sqrt(len(changes))
    return max(0.0, least)


def _share_lost(before: Line, now: Line, key: str) -> float | None:
    """The same as a share of what there was; None where that is not clearly above 0."""
    known = [value for value in before["per_row"][key] if value is not None]
    lost = _lost(before, now, key)
    if lost is None:
        return None
    least = fmean(known) - 2 * stdev(known) / sqrt(len(known))
    return lost / float(fmean(known)) if least > LEAST_DEPENDENCE else None


def _parting(probes: Sequence[Line]) -> float | None:
    """How far the task has fallen from the start while the reward rose over the first probe's;
    0 where it did not."""
    lost = _lost(probes[0], probes[-1], "answer_likelihood")
    reward = [probe["reward"] for probe in probes if probe["reward"] is not None]
    if lost is None or len(reward) < 2:
        return None
    return lost if reward[-1] > reward[0] else 0.0


def _ratio(now: float | None, start: float | None, least: float = 0.0) -> float | None:
    """``now`` over ``start``, which counts as ``least`` at the least."""
    if now is None or start is None or max(start, least) <= 0:
        return None
    return now / max(start, least)


def _difference(now: float | None, start: float | None) -> float | None:
    return None if now is None or start is None else now - start


def _rise(now: float | None, start: float | None, usual: float = 0.0) -> float | None:
    """``now`` without what was over ``usual`` at the start, 0 or more."""
    return None if now is None else max(0.0, now - max(0.0, (start or 0.0) - usual))


def _kept(now: float | None, start: float | None, usual: float) -> float | None:
    """``now``; where the start was under ``usual``, as if it had begun there."""
    if now is None or start is None or start >= usual:
        return now
    return usual * now / start if start > 0 else usual
