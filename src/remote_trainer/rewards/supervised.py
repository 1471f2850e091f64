"""Supervised reward: how well a completion covers the reference answer."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from remote_trainer.records import Encoder, LogprobRequest, Sample, TokenIds
from remote_trainer.rewards.base import Logprobs, Plan, RewardConfig

EASY_ANSWER_NATS = 0.1
"""Below this loss an answer was known without the completion; a ratio to less is noise."""


class Supervised(RewardConfig):
    """Coverage-weighted likelihood of the reference answer.

    With C completion ids and A answer ids, both without end-of-sequence, k = min(1, C/A) and
    p_t = p(a_t | prompt, completion, connector, a_<t):

    - coverage_prob: k * mean_t p_t, range [0, 1];
    - coverage_ce: k * mean_t max(log p_t, -c_max) - (1 - k) * c_max, range [-c_max, 0];
    - coverage_information: clip(1 - CE(a | prompt, completion) / CE(a | prompt), 0, 1), the share
      of the answer's information that the completion carries;
    - original: the first published expression to the letter, where missing tokens cost nothing.

    Empty or truncated completions get the minimum. The mean of token probabilities follows RLPR
    (arXiv 2506.18254). Known failures: a completion that names many candidates scores well; with
    ``alignment: positional`` a right answer at another place scores like a wrong one, and a
    one-token answer gives no gradient at all.
    """

    type: Literal["supervised"] = "supervised"
    """This reward."""
    formula: Literal["coverage_prob", "coverage_ce", "coverage_information", "original"] = (
        "coverage_prob"
    )
    """How covered and missing answer tokens become a number; see above."""
    alignment: Literal["after_completion", "positional"] = "after_completion"
    """Where the answer is looked for: behind the completion, or token by token in its place."""
    connector: str = "\nAnswer: "
    """Text between completion and answer (``after_completion`` only)."""
    scored_by: Literal["policy", "reference"] = "policy"
    """``reference`` judges with the adapter switched off."""
    c_max: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    """Nats at which one token's loss is cut (coverage_ce)."""

    needs_answer = True

    @model_validator(mode="after")
    def _information_needs_the_whole_answer(self) -> Self:
        if self.formula == "coverage_information" and self.alignment == "positional":
            raise ValueError(
                "formula coverage_information has no positional form; "
                "write alignment: after_completion"
            )
        return self

    @property
    def minimum(self) -> float:
        return {"coverage_ce": -self.c_max, "original": float("-inf")}.get(self.formula, 0.0)

    @property
    def maximum(self) -> float:
        return 0.0 if self.formula in ("coverage_ce", "original") else 1.0

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        answer = self.answer_of(sample)
        answer_ids = encode(answer) if answer else ()
        if not answer_ids:
            return None
        if self.formula == "original":
            return self._original(sample, answer_ids, encode)
        if sample.empty or sample.truncated:
            return Plan.settled(self.minimum)
        coverage = min(1.0, len(sample.content_ids) / len(answer_ids))
        if self.alignment == "positional":
            covered = min(len(sample.content_ids), len(answer_ids))
            request = LogprobRequest(
                sample.prompt_ids,
                sample.content_ids[:covered],
                answer_ids[:covered],
                self.scored_by,
            )
            return Plan((request,), lambda logprobs: self._value(logprobs, coverage))
        return self._after_completion(sample, answer_ids, encode(self.connector), coverage)

    def _after_completion(
        self, sample: Sample, answer_ids: TokenIds, connector_ids: TokenIds, coverage: float
    ) -> Plan:
        context = sample.prompt_ids + sample.content_ids + connector_ids
        request = LogprobRequest(context, answer_ids, answer_ids, self.scored_by)
        if self.formula != "coverage_information":
            return Plan((request,), lambda logprobs: self._value(logprobs, coverage))
        without = LogprobRequest(
            sample.prompt_ids + connector_ids, answer_ids, answer_ids, self.scored_by
        )
        return Plan((request, without), coverage_information)

    def _value(self, logprobs: Logprobs, coverage: float) -> float:
        if self.formula == "coverage_ce":
            return coverage_ce(logprobs, coverage, self.c_max)
        return coverage_prob(logprobs, coverage)

    def _original(self, sample: Sample, answer_ids: TokenIds, encode: Encoder) -> Plan:
        """The prompt is not seen, and position t is compared one token too early without BOS."""
        ids = encode(sample.completion_text, special_tokens=True)
        compared = min(len(ids) - 1, len(answer_ids))
        if compared <= 0:
            return Plan.settled(0.0)
        coverage = min(1.0, len(encode(sample.completion_text)) / len(answer_ids))
        request = LogprobRequest(ids[:1], ids[1:], answer_ids[:compared], self.scored_by)
        return Plan((request,), lambda logprobs: sum(logprobs) / len(logprobs) * coverage)


def coverage_prob(logprobs: Logprobs, coverage: float) -> float:
    """coverage * mean_t p_t, in [0, 1]; ``logprobs`` are log p_t in nats, at least one."""
    return coverage * sum(math.exp(value) for value in logprobs) / len(logprobs)


def coverage_ce(logprobs: Logprobs, coverage: float, c_max: float) -> float:
    """coverage * mean_t max(log p_t, -c_max) - (1 - coverage) * c_max, in [-c_max, 0]."""
    covered = sum(max(value, -c_max) for value in logprobs) / len(logprobs)
    return coverage * covered - (1.0 - coverage) * c_max


def coverage_information(logprobs: Logprobs, without: Logprobs) -> float:
    """clip(1 - CE / CE_without, 0, 1): log p_t of the answer with and without the completion."""
    loss = -sum(logprobs) / len(logprobs)
    loss_without = max(-sum(without) / len(without), EASY_ANSWER_NATS)
    return min(1.0, max(0.0, 1.0 - loss / loss_without))
