"""Random reward: the control for experiments."""

import hashlib
import random
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Gate, Plan, RewardConfig
from remote_trainer.rewards.properties import every_property


class Random(RewardConfig):
    """A random number: the control for experiments, with no information about the completion.

    Formula: r is uniform in [0, 1) and depends on `seed`, all completions of the call and the
    completion's position, so a resumed run draws the same values and a text has no fixed reward.

    Range: [0, 1); with a `gate`, completions that fail it get 0.

    Cost: no forward pass.

    Source: Spurious Rewards (arXiv 2506.10947): random rewards raised some scores by 21 points.

    Known failure: it has no information; that is its purpose.
    """

    type: Literal["random"] = "random"
    """This reward."""
    seed: int = Field(default=0, ge=0)
    """Seed of the random numbers."""
    gate: Gate = ()
    """A completion that fails one of these gets 0: ended, not_empty, not_looping."""

    @property
    def exceptions(self) -> dict[str, str]:
        return every_property("the reward is random")

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        """One random number per sample, seeded with the whole batch."""
        batch = hashlib.sha256(repr([(s.prompt_ids, s.completion_ids) for s in samples]).encode())
        draw = random.Random(f"{self.seed} {batch.hexdigest()}")
        values = [draw.random() for _ in samples]
        return [
            Plan.floor(0.0) if self.fails_gate(sample) else Plan.constant(value)
            for sample, value in zip(samples, values, strict=True)
        ]
