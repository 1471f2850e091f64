"""Unsupervised reward: distance of the model's token distributions from uniform."""

from typing import ClassVar, Literal

from pydantic import Field

from remote_trainer.records import Encoder, Sample, Scorer, ScoreRequest
from remote_trainer.rewards.base import Plan, RewardConfig, Scores


class SelfCertainty(RewardConfig):
    """The model's mean confidence at each token, whichever token it sampled.

    Formula: r = mean_t min(KL(uniform, p_t), c_max), where KL(uniform, p_t) = logsumexp(z_t) -
    mean(z_t) - log V for the logits z_t over V ids that predict completion token t, the
    end-of-sequence id included.

    Range: [0, c_max] nats per token; empty or truncated gets 0.

    Cost: one forward pass over prompt and completion, with full logits.

    Source: Intuitor (arXiv 2505.19590).

    Known failure: slow drift to long, confident and wrong completions; in the source, a frozen
    scorer was exploited by update 100. Without the cap it has no upper bound.
    """

    only_certainty: ClassVar[bool] = True

    type: Literal["self_certainty"] = "self_certainty"
    """This reward."""
    scored_by: Scorer = "policy"
    """`reference` scores with the adapter disabled."""
    c_max: float = Field(default=50.0, gt=0, allow_inf_nan=False)
    """Cap of one token's certainty, in nats."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {"P4": "only the cap c_max bounds it"}

    @property
    def maximum(self) -> float:
        return self.c_max

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        request = ScoreRequest.of(
            sample.prompt_ids, sample.completion_ids, self.scored_by, "self_certainty"
        )
        return Plan((request,), lambda values: mean_certainty(values, self.c_max))


def mean_certainty(certainties: Scores, c_max: float) -> float:
    """mean_t min(KL(uniform, p_t), c_max); rounding below 0 counts as 0."""
    return sum(min(max(value, 0.0), c_max) for value in certainties) / len(certainties)
