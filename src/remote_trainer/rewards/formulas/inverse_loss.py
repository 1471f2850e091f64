"""Unsupervised reward: mean log-probability of the completion."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from remote_trainer.records import Encoder, Sample, Scorer, ScoreRequest
from remote_trainer.rewards.base import Plan, RewardConfig, Scores
from remote_trainer.rewards.properties import every_property


class InverseLoss(RewardConfig):
    """Mean log-probability of the completion's tokens.

    Formula: r = max(mean_t log p(c_t | prompt, c_<t), -c_max) over all sampled ids, the
    end-of-sequence id included. `formula: original` is the originally published expression with
    its faults: text is tokenised again and an empty completion gets 0.0, the maximum.

    Range: [-c_max, 0] nats per token; empty or truncated gets -c_max.

    Cost: none with `scored_by: policy` if sampling and scoring use the same dtype, or if an update
    is one micro-step (its forward pass is reused); none with `scored_by: reference` and beta > 0
    at temperature 1 (the KL term's pass is reused); else one forward pass over prompt and
    completion.

    Source: trajectory entropy of EM-RL (arXiv 2505.15134); tested as a reward in appendix B.4 of
    Intuitor (arXiv 2505.19590).

    Known failure: maximising it under the policy is entropy minimisation. The model becomes
    more confident in what it already says, then collapses into loops or one phrase. The reference
    (the default) has a fixed point, whose distance from the start `training.beta` sets.
    """

    only_certainty: ClassVar[bool] = True

    type: Literal["inverse_loss"] = "inverse_loss"
    """This reward."""
    formula: Literal["mean_logprob", "original"] = "mean_logprob"
    """`original` is the originally published expression with its faults."""
    truncated: Literal["floor", "score"] = "floor"
    """`floor`: a truncated completion gets the minimum; `score`: it is scored like any other."""
    scored_by: Scorer = "reference"
    """`reference` scores with the adapter disabled; `policy` with the current model."""
    c_max: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Cap of the mean loss, in nats per token."""

    @property
    def minimum(self) -> float:
        return float("-inf") if self.formula == "original" else -self.c_max

    @property
    def maximum(self) -> float:
        return 0.0

    @property
    def exceptions(self) -> dict[str, str]:
        if self.formula == "original":
            return every_property("the originally published formula")
        return {"P14": "truncated completions are scored"} if self.truncated == "score" else {}

    @property
    def truncated_is_invalid(self) -> bool:
        return self.truncated == "floor"

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        if self.formula == "original":
            return [self._original(sample, encode) for sample in samples]
        return super().plans(samples, encode)

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        request = ScoreRequest.of(sample.prompt_ids, sample.completion_ids, self.scored_by)
        return Plan((request,), lambda logprobs: mean_logprob(logprobs, self.c_max))

    def _original(self, sample: Sample, encode: Encoder) -> Plan:
        """Tokenises the text again and counts the prompt's length without special tokens."""
        ids = encode(sample.prompt_text + sample.completion_text, special_tokens=True)
        prompt_length = len(encode(sample.prompt_text))
        # With an empty prompt the published slice starts at -1: only the last token.
        start = prompt_length if prompt_length > 0 else len(ids) - 1
        if start < 1 or start >= len(ids):
            return Plan.constant(0.0)
        request = ScoreRequest.of(ids[:start], ids[start:], self.scored_by)
        return Plan((request,), lambda logprobs: sum(logprobs) / len(logprobs))


def mean_logprob(logprobs: Scores, c_max: float) -> float:
    """max(mean log p, -c_max), in nats per token; ``logprobs`` holds at least one value."""
    return max(sum(logprobs) / len(logprobs), -c_max)
