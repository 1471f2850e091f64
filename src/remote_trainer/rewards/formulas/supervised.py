"""Supervised reward: how well a completion covers the reference answer."""

import math
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from remote_trainer.records import Encoder, Sample, Scorer, ScoreRequest, TokenIds
from remote_trainer.rewards.base import Plan, RewardConfig, Scores
from remote_trainer.rewards.properties import every_property
from remote_trainer.rewards.reference_answer import (
    CONNECTOR,
    answer_after_completion,
    answer_after_prompt,
)

EASY_ANSWER_NATS = 0.1
"""Lower bound of the loss without the completion; a ratio to a smaller loss is noise."""

SENTENCE_TOKENS = 8
"""Tokens of a short sentence, beside those of the answer in it."""


class Supervised(RewardConfig):
    """Coverage-weighted likelihood of the reference answer.

    Formula: with C completion ids (after a thinking block, if there is one) and A answer ids,
    both without end-of-sequence, k = min(1, C/A) and p_t = p(a_t | prompt, completion, connector,
    a_<t): `coverage_prob` is k * mean_t p_t; `coverage_ce` is k * mean_t max(log p_t, -c_max) -
    (1 - k) * c_max; `coverage_information` is clip(1 - CE(a | prompt, completion, connector) /
    max(CE(a | prompt, connector), 0.1 nats), 0, 1), the share of the answer's information that the
    completion carries; `original` is the originally published expression, -CE * k position by
    position without the prompt, with its faults: missing text costs nothing, so the empty
    completion scores highest.

    By default `coverage_prob` (with `alignment: after_completion`) is one part of the reward:
    r = b ** length_weight * (coverage_prob + fluency_weight * f) / (1 + fluency_weight), with
    fluency f = p(completion | prompt) ** (1 / (8 + A)), over all sampled ids, and brevity b = (8 +
    A) / (8 + max(C, A)). With both weights 0, r is exactly coverage_prob.

    Range: [0, 1]; `coverage_ce` [-c_max, 0]; empty or truncated gets the minimum.

    Cost: one forward pass over prompt, completion and answer; with `scored_by: reference` and
    beta > 0 at temperature 1 only the answer is added to the KL term's pass, and fluency costs
    nothing; `coverage_information` adds one pass per prompt, for the answer without the
    completion.

    Source: the mean of token probabilities follows RLPR (arXiv 2506.18254); coverage_information
    is related to RLP (arXiv 2510.01265).

    Known failure: a wrong answer that the model finds likely scores above a right one that it finds
    strange. With `fluency_weight: 0`, a completion that lists many candidates scores well, and junk
    after a short answer costs almost nothing. Coverage counts tokens, not meaning: until a
    completion is as long as the answer, every token raises it. With `alignment: positional` a right
    answer at another position scores like a wrong one, and a one-token answer gives no gradient.
    """

    type: Literal["supervised"] = "supervised"
    """This reward."""
    formula: Literal["coverage_prob", "coverage_ce", "coverage_information", "original"] = (
        "coverage_prob"
    )
    """How the reward is computed from covered and missing answer tokens; see Formula."""
    alignment: Literal["after_completion", "positional"] = "after_completion"
    """Where the answer is scored: after the completion, or position by position in its place."""
    connector: str = CONNECTOR
    """Text between completion and answer (`after_completion` only)."""
    scored_by: Scorer = "reference"
    """`reference` scores with the adapter disabled; `policy` with the current model."""
    fluency_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the completion's own probability (coverage_prob after the completion); 0: off."""
    length_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """How much tokens beyond the answer's length cost in addition (coverage_prob after the
    completion); 0: nothing."""
    c_max: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    """Cap of one token's loss, in nats (coverage_ce)."""

    @model_validator(mode="after")
    def _information_has_no_positional_form(self) -> Self:
        if self.formula == "coverage_information" and self.alignment == "positional":
            raise ValueError(
                "formula coverage_information has no positional form; "
                "write alignment: after_completion"
            )
        return self

    @property
    def exceptions(self) -> dict[str, str]:
        if self.formula == "original":
            return every_property("the originally published formula")
        if self.alignment == "positional":
            return {
                "P6": "the first position depends on the prompt alone",
                "P16": "compared position by position",
            }
        if self.formula == "coverage_prob" and self.fluency_weight > 0:
            return {
                "P2": "a part that the model finds likelier than the whole may score higher",
                "P21": "a wrong answer that the model finds likelier may score higher",
            }
        return {"P17": "every listed candidate becomes likely; add length_limit"}

    @property
    def minimum(self) -> float:
        return {"coverage_ce": -self.c_max, "original": float("-inf")}.get(self.formula, 0.0)

    @property
    def maximum(self) -> float:
        return 0.0 if self.formula in ("coverage_ce", "original") else 1.0

    @property
    def needs_answer(self) -> bool:
        return True

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        if self.formula == "original":
            return [
                self.by_best_answer(sample, lambda each: self._original(each, encode))
                for sample in samples
            ]
        return super().plans(samples, encode)

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        answer_ids = encode(self.answer_of(sample) or "")
        if not answer_ids:
            return None
        coverage = min(1.0, len(sample.answer_ids) / len(answer_ids))
        if coverage == 0:  # only a thinking block
            return Plan.constant(self.minimum)
        if self.alignment == "positional":
            return self._positional(sample, answer_ids, coverage)
        connector_ids = encode(self.connector)
        request = answer_after_completion(sample, connector_ids, answer_ids, self.scored_by)
        if self.formula == "coverage_prob":
            return self._weighted(sample, request, answer_ids, coverage)
        if self.formula == "coverage_ce":
            return Plan((request,), lambda logprobs: self._value(logprobs, coverage))
        without = answer_after_prompt(sample, connector_ids, answer_ids, self.scored_by)
        return Plan((request, without), coverage_information)

    def _weighted(
        self, sample: Sample, request: ScoreRequest, answer_ids: TokenIds, coverage: float
    ) -> Plan:
        brief: float = brevity(len(sample.answer_ids), len(answer_ids)) ** self.length_weight
        if self.fluency_weight == 0:
            return Plan((request,), lambda logprobs: brief * coverage_prob(logprobs, coverage))
        said = ScoreRequest.of(sample.prompt_ids, sample.completion_ids, self.scored_by)

        def value(logprobs: Scores, of_completion: Scores) -> float:
            fluency = math.exp(sum(of_completion) / (SENTENCE_TOKENS + len(answer_ids)))
            both = coverage_prob(logprobs, coverage) + self.fluency_weight * fluency
            return brief * both / (1.0 + self.fluency_weight)

        return Plan((request, said), value)

    def _positional(self, sample: Sample, answer_ids: TokenIds, coverage: float) -> Plan:
        covered = min(len(sample.answer_ids), len(answer_ids))
        request = ScoreRequest(
            sample.prompt_ids + sample.content_ids[: sample.thinking.length],
            sample.answer_ids[:covered],
            answer_ids[:covered],
            self.scored_by,
        )
        return Plan((request,), lambda logprobs: self._value(logprobs, coverage))

    def _value(self, logprobs: Scores, coverage: float) -> float:
        if self.formula == "coverage_ce":
            return coverage_ce(logprobs, coverage, self.c_max)
        return coverage_prob(logprobs, coverage)

    def _original(self, sample: Sample, encode: Encoder) -> Plan | None:
        """Ignores the prompt; without BOS, position t is compared one token too early."""
        answer_ids = encode(self.answer_of(sample) or "")
        if not answer_ids:
            return None
        ids = encode(sample.completion_text, special_tokens=True)
        compared = min(len(ids) - 1, len(answer_ids))
        if compared <= 0:
            return Plan.constant(0.0)
        coverage = min(1.0, len(encode(sample.completion_text)) / len(answer_ids))
        request = ScoreRequest(ids[:1], ids[1:], answer_ids[:compared], self.scored_by)
        return Plan((request,), lambda logprobs: sum(logprobs) / len(logprobs) * coverage)


def coverage_prob(logprobs: Scores, coverage: float) -> float:
    """coverage * mean_t p_t, in [0, 1]; ``logprobs`` are log p_t in nats, at least one."""
    return coverage * sum(math.exp(value) for value in logprobs) / len(logprobs)


def brevity(completion_tokens: int, answer_tokens: int) -> float:
    """(8 + A) / (8 + max(C, A)), in (0, 1]: 1 up to the answer's length, then ever less."""
    longer = max(completion_tokens, answer_tokens)
    return (SENTENCE_TOKENS + answer_tokens) / (SENTENCE_TOKENS + longer)


def coverage_ce(logprobs: Scores, coverage: float, c_max: float) -> float:
    """coverage * mean_t max(log p_t, -c_max) - (1 - coverage) * c_max, in [-c_max, 0]."""
    covered = sum(max(value, -c_max) for value in logprobs) / len(logprobs)
    return max(-c_max, coverage * covered - (1.0 - coverage) * c_max)  # rounding can give less


def coverage_information(logprobs: Scores, without: Scores) -> float:
    """clip(1 - CE / CE_without, 0, 1): log p_t of the answer with and without the completion."""
    loss = -sum(logprobs) / len(logprobs)
    loss_without = max(-sum(without) / len(without), EASY_ANSWER_NATS)
    return min(1.0, max(0.0, 1.0 - loss / loss_without))
