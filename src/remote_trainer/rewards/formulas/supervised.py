"""Supervised reward: how well a completion covers the reference answer."""

import math
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from remote_trainer.records import Encoder, Sample, Scorer, ScoreRequest, TokenIds
from remote_trainer.rewards.base import Plan, RewardConfig, Scores
from remote_trainer.rewards.properties import every_property
from remote_trainer.rewards.reference_answer import CONNECTOR, behind_completion, behind_prompt

EASY_ANSWER_NATS = 0.1
"""Below this loss an answer was known without the completion; a ratio to less is noise."""


class Supervised(RewardConfig):
    """Coverage-weighted likelihood of the reference answer.

    Formula: with C completion ids (after a thinking block, if there is one) and A answer ids,
    both without end-of-sequence, k = min(1, C/A) and p_t = p(a_t | prompt, completion, connector,
    a_<t): `coverage_prob` is k * mean_t p_t; `coverage_ce` is k * mean_t max(log p_t, -c_max) -
    (1 - k) * c_max; `coverage_information` is clip(1 - CE(a | prompt, completion, connector) /
    max(CE(a | prompt, connector), 0.1 nats), 0, 1), the share of the answer's information that the
    completion carries; `original` is the expression first published, -CE * k position by position
    without the prompt, faults included: missing text costs nothing, so the empty completion wins.

    Range: [0, 1]; `coverage_ce` [-c_max, 0]; empty or truncated gets the minimum.

    Cost: one forward pass over prompt, completion and answer; `coverage_information` one more per
    prompt, for the answer without the completion.

    Source: the mean of token probabilities follows RLPR (arXiv 2506.18254); coverage_information
    is a relative of RLP (arXiv 2510.01265).

    Known failure: a completion that names many candidates scores well, and junk behind a short
    answer costs next to nothing: on the built-in model 60 words of it moved the mean by under 0.1
    (add `inverse_loss` scored by the reference, as configs/supervised.yaml does, or
    `length_limit`). Coverage counts tokens, not meaning: until a completion is as long as the
    answer every token raises it, and where the answer's tokens predict each other, junk of that
    length beats a right quarter (`coverage_information` and `answer_likelihood` are free of that).
    With `alignment: positional` a right answer at another
    place scores like a wrong one, and a one-token answer gives no gradient at all.
    """

    type: Literal["supervised"] = "supervised"
    """This reward."""
    formula: Literal["coverage_prob", "coverage_ce", "coverage_information", "original"] = (
        "coverage_prob"
    )
    """How covered and missing answer tokens become a number; see Formula."""
    alignment: Literal["after_completion", "positional"] = "after_completion"
    """Where the answer is looked for: behind the completion, or token by token in its place."""
    connector: str = CONNECTOR
    """Text between completion and answer (`after_completion` only)."""
    scored_by: Scorer = "policy"
    """`reference` judges with the adapter switched off."""
    c_max: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    """Nats at which one token's loss is cut (coverage_ce)."""

    @model_validator(mode="after")
    def _information_needs_the_whole_answer(self) -> Self:
        if self.formula == "coverage_information" and self.alignment == "positional":
            raise ValueError(
                "formula coverage_information has no positional form; "
                "write alignment: after_completion"
            )
        return self

    @property
    def exceptions(self) -> dict[str, str]:
        if self.formula == "original":
            return every_property("the expression first published")
        if self.alignment == "positional":
            return {
                "P6": "the first position depends on the prompt alone",
                "P16": "compared place by place",
            }
        return {"P17": "every candidate that is named becomes likely; add length_limit"}

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
        if coverage == 0:  # thinking alone
            return Plan.settled(self.minimum)
        if self.alignment == "positional":
            return self._positional(sample, answer_ids, coverage)
        connector_ids = encode(self.connector)
        request = behind_completion(sample, connector_ids, answer_ids, self.scored_by)
        if self.formula != "coverage_information":
            return Plan((request,), lambda logprobs: self._value(logprobs, coverage))
        without = behind_prompt(sample, connector_ids, answer_ids, self.scored_by)
        return Plan((request, without), coverage_information)

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
        """The prompt is not seen, and position t is compared one token too early without BOS."""
        answer_ids = encode(self.answer_of(sample) or "")
        if not answer_ids:
            return None
        ids = encode(sample.completion_text, special_tokens=True)
        compared = min(len(ids) - 1, len(answer_ids))
        if compared <= 0:
            return Plan.settled(0.0)
        coverage = min(1.0, len(encode(sample.completion_text)) / len(answer_ids))
        request = ScoreRequest(ids[:1], ids[1:], answer_ids[:compared], self.scored_by)
        return Plan((request,), lambda logprobs: sum(logprobs) / len(logprobs) * coverage)


def coverage_prob(logprobs: Scores, coverage: float) -> float:
    """coverage * mean_t p_t, in [0, 1]; ``logprobs`` are log p_t in nats, at least one."""
    return coverage * sum(math.exp(value) for value in logprobs) / len(logprobs)


def coverage_ce(logprobs: Scores, coverage: float, c_max: float) -> float:
    """coverage * mean_t max(log p_t, -c_max) - (1 - coverage) * c_max, in [-c_max, 0]."""
    covered = sum(max(value, -c_max) for value in logprobs) / len(logprobs)
    return max(-c_max, coverage * covered - (1.0 - coverage) * c_max)  # rounding falls below


def coverage_information(logprobs: Scores, without: Scores) -> float:
    """clip(1 - CE / CE_without, 0, 1): log p_t of the answer with and without the completion."""
    loss = -sum(logprobs) / len(logprobs)
    loss_without = max(-sum(without) / len(without), EASY_ANSWER_NATS)
    return min(1.0, max(0.0, 1.0 - loss / loss_without))
