"""The control that every study needs: a reward that says nothing."""

import hashlib
import random
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Gate, Plan, RewardConfig
from remote_trainer.rewards.properties import every_property


class Random(RewardConfig):
    """Chance: what training does without any information. The control for every study.

    Formula: r is uniform in [0, 1), drawn from `seed`, all completions of the call and the
    completion's place among them, so a resumed run draws the same and a text has no fixed reward.

    Range: [0, 1); with a `gate`, completions that fail it get 0.

    Cost: no forward pass.

    Source: Spurious Rewards (arXiv 2506.10947), where chance raised some scores by 21 points.

    Known failure: all of them; that is its use.
    """

    type: Literal["random"] = "random"
    """This reward."""
    seed: int = Field(default=0, ge=0)
    """Of the draws."""
    gate: Gate = ()
    """A completion that fails one of these gets 0: ended, not_empty, not_looping."""

    @property
    def exceptions(self) -> dict[str, str]:
        return every_property("chance judges nothing")

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        """One draw per sample; the batch as a whole is the seed."""
        batch = hashlib.sha256(repr([(s.prompt_ids, s.completion_ids) for s in samples]).encode())
        draw = random.Random(f"{self.seed} {batch.hexdigest()}")
        values = [draw.random() for _ in samples]
        return [
            Plan.floor(0.0) if self.fails_gate(sample) else Plan.settled(value)
            for sample, value in zip(samples, values, strict=True)
        ]
