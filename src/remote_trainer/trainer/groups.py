"""Rewards of a group: values for the advantages, their spread, and the group filter."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from remote_trainer.config.schema import GroupFilterSettings
from remote_trainer.records import RewardResult

WARM_UP_UPDATES = 5


def signal_values(group: Sequence[RewardResult]) -> list[float | None]:
    """The values from which the advantages of one group are computed; None if not judged.

    An invalid completion (empty, truncated, gated) keeps its reward in every report. Here, if at
    least two completions were measured, it gets the lowest measured reward: its own minimum may be
    so low that the differences between the others vanish. A lower value would mainly teach the
    model to end early (docs/learning.md).
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
    """Standard deviation of the measured rewards of a group; None if no completion was judged.

    With fewer than two measured completions, the invalid ones count, too.
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
    """Keeps groups whose spread is above ``min_std`` and a share of the running average.

    The share follows RLPR (arXiv 2506.18254); every judged group counts in the average.
    """

    settings: GroupFilterSettings
    average: float | None = None
    updates: int = 0

    def keep(self, spreads: Sequence[float | None]) -> list[bool]:
        """One flag per group; updates the running average."""
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
        """The state for a checkpoint."""
        return {"average": self.average, "updates": self.updates}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.average, self.updates = state["average"], state["updates"]
