"""Supervised reward: likelihood of the reference answer after the completion."""

import math
from typing import Literal

from pydantic import Field

from remote_trainer.records import Encoder, Sample, Scorer
from remote_trainer.rewards.base import Plan, RewardConfig, Scores
from remote_trainer.rewards.reference_answer import (
    CONNECTOR,
    answer_after_completion,
    answer_after_prompt,
)

SHORT_ANSWER_TOKENS = 32


class AnswerLikelihood(RewardConfig):
    """Likelihood of the reference answer after the completion.

    Formula: with p_t = p(a_t | prompt, completion without end-of-sequence, connector, a_<t):
    `mean_prob` is mean_t p_t; `mean_logprob` is 1 + mean_t max(log p_t, -c_max) / c_max; `auto` is
    mean_prob up to 32 answer tokens, else mean_logprob. With `baseline: true` r = clip(score -
    score without the completion, 0, 1).

    Range: [0, 1]; empty or truncated gets 0.

    Cost: one forward pass over prompt, completion and answer; with `scored_by: reference` and
    beta > 0 at temperature 1 only the answer is added to the KL term's pass; `baseline` adds one
    pass per prompt.

    Source: RLPR (arXiv 2506.18254) for mean_prob and the baseline; LaTRO (arXiv 2411.04282) and
    Likelihood-Based Reward Designs (arXiv 2602.03979) for log-probabilities on long answers.

    Known failure: listing several candidates, or any text that makes the answer predictable,
    scores well, and junk after a short answer costs nothing (add `inverse_loss` with `scored_by:
    reference`, as configs/supervised.yaml does, or `length_limit`). With `scored_by: policy`, a
    model that has memorised the answers gives all completions about the same reward.
    """

    type: Literal["answer_likelihood"] = "answer_likelihood"
    """This reward."""
    formula: Literal["auto", "mean_prob", "mean_logprob"] = "auto"
    """How the answer's token probabilities become one number."""
    connector: str = CONNECTOR
    """Text between completion and answer."""
    scored_by: Scorer = "reference"
    """`reference` scores with the adapter disabled; `policy` with the current model."""
    baseline: bool = False
    """Subtract the answer's likelihood without the completion."""
    c_max: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Cap of one token's loss, in nats (mean_logprob)."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {"P17": "every listed candidate becomes likely; add length_limit"}

    @property
    def needs_answer(self) -> bool:
        return True

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        answer_ids = encode(self.answer_of(sample) or "")
        if not answer_ids:
            return None
        connector_ids = encode(self.connector)
        request = answer_after_completion(sample, connector_ids, answer_ids, self.scored_by)
        if not self.baseline:
            return Plan((request,), self._score)
        without = answer_after_prompt(sample, connector_ids, answer_ids, self.scored_by)
        return Plan(
            (request, without),
            lambda logprobs, alone: min(1.0, max(0.0, self._score(logprobs) - self._score(alone))),
        )

    def _score(self, logprobs: Scores) -> float:
        short = len(logprobs) <= SHORT_ANSWER_TOKENS
        if self.formula == "mean_prob" or (self.formula == "auto" and short):
            return mean_prob(logprobs)
        return scaled_logprob(logprobs, self.c_max)


def mean_prob(logprobs: Scores) -> float:
    """mean_t p_t, in [0, 1]; ``logprobs`` are log p_t in nats, at least one."""
    return sum(math.exp(value) for value in logprobs) / len(logprobs)


def scaled_logprob(logprobs: Scores, c_max: float) -> float:
    """1 + mean_t max(log p_t, -c_max) / c_max, in [0, 1]."""
    mean = sum(max(value, -c_max) for value in logprobs) / len(logprobs)
    return max(0.0, 1.0 + mean / c_max)  # rounding can give less than 0
