"""From results to the values that advantages are made of: invalid ones, spread, groups to drop."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from remote_trainer.config.schema import GroupFilterSettings
from remote_trainer.records import RewardResult

WARM_UP_UPDATES = 5


def signal_values(group: Sequence[RewardResult]) -> list[float | None]:
    """The values that advantages of one group are computed from; None where not judged.

    A invalid completion (empty, truncated, gated) keeps its reward in every report. Here, where at
    least two others were measured, it stands with the worst of them: its true floor may lie so far
    away that all differences between the others would vanish. Standing further below, it would
    teach little but to end soon (docs/learning.md).
    """
    measured = _measured(group)
    if len(measured) < 2:
        return [reward_result.reward for reward_result in group]
    floor = min(measured)
    return [
        floor
        if reward_result.invalid and reward_result.reward is not None
        else reward_result.reward
        for reward_result in group
    ]


def spread(group: Sequence[RewardResult]) -> float | None:
    """Standard deviation of the rewards that were measured, not invalid; None if none was judged.

    Where fewer than two were measured, floors are all there is to compare with, so they count.
    """
    measured = _measured(group)
    known = [reward_result.reward for reward_result in group if reward_result.reward is not None]
    if not known:
        return None
    values = known if len(measured) < 2 else measured
    return stdev(values) if len(values) > 1 else 0.0


def _measured(group: Sequence[RewardResult]) -> list[float]:
    return [j.reward for j in group if j.reward is not None and not j.invalid]


@dataclass
class GroupFilter:
    """Decides which groups have signal: absolutely, and by a share of the running average.

    The share follows RLPR (arXiv 2506.18254); the average counts every group that was judged.
    """

    settings: GroupFilterSettings
    average: float | None = None
    updates: int = 0

    def keep(self, spreads: Sequence[float | None]) -> list[bool]:
        """One flag per group; moves the running average."""
        known = [value for value in spreads if value is not None]
        limit = self.settings.min_std
        if self.average is not None and self.updates >= WARM_UP_UPDATES:
            limit = max(limit, self.settings.average_share * self.average)
        if known:
            mean, decay = fmean(known), self.settings.average_decay
            old = mean if self.average is None else self.average
            self.average = decay * old + (1 - decay) * mean
        self.updates += 1
        return [value is not None and value > limit for value in spreads]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"average": self.average, "updates": self.updates}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.average, self.updates = state["average"], state["updates"]
