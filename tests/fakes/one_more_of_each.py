"""The program with one more reward, export format and alarm: an entry each, and nothing else."""

from dataclasses import replace
from typing import Literal

from remote_trainer.export.registry import FORMATS
from remote_trainer.export_formats import EXPORT_FORMATS
from remote_trainer.guard import ALARMS, Levels
from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.rewards.registry import REWARDS


class Shout(RewardConfig):
    """Capital letters.

    Formula: r = 1 for a completion in capitals, else 0.

    Range: [0, 1].

    Cost: no forward pass.

    Source: a test.

    Known failure: IT IS LOUD.
    """

    type: Literal["shout"] = "shout"
    """This reward."""
    loudness: float = 1.0
    """How loud."""

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        return Plan.constant(float(sample.completion_text.isupper()))


REWARDS["shout"] = Shout
ALARMS["hoarse"] = replace(ALARMS["loop_share"], levels=Levels(warn=0.25, stop=None))
EXPORT_FORMATS["scroll"] = replace(EXPORT_FORMATS["merged_16bit"], title="A scroll", folder="roll")
FORMATS["scroll"] = replace(
    FORMATS["merged_16bit"],
    facts=EXPORT_FORMATS["scroll"],
    missing=lambda gguf_type: ["parchment: buy a calf"],
)

if __name__ == "__main__":
    from remote_trainer.cli import main

    main()
