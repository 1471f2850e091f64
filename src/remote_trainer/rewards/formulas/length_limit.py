"""Text reward: penalty for completions beyond a length limit."""

from math import ceil
from typing import Literal

from pydantic import Field

from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig


class LengthLimit(RewardConfig):
    """Penalty for tokens beyond a limit: a number, or a multiple of the answer's length.

    Formula: with C completion ids (without end-of-sequence and thinking block) r = -min(1, max(0,
    C - limit) / buffer), where the limit is `max_tokens` or, if that is null, `slack` plus
    `answer_ratio` times the answer's ids, rounded up.

    Range: [-1, 0]; empty or truncated gets -1.

    Cost: no forward pass.

    Source: the soft overlong punishment of DAPO (arXiv 2503.14476).

    Known failure: used alone, it only shortens completions; use it with a small weight beside
    another reward.
    """

    type: Literal["length_limit"] = "length_limit"
    """This reward."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Tokens without penalty; null: slack + answer_ratio times the answer's tokens."""
    answer_ratio: float = Field(default=2.0, ge=1, allow_inf_nan=False)
    """Tokens without penalty per token of the reference answer."""
    slack: int = Field(default=8, ge=0)
    """Additional tokens without penalty, about a short sentence around the answer."""
    buffer: int = Field(default=16, gt=0)
    """Tokens beyond the limit at which the penalty reaches -1."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {
            "P2": "within the limit, more of the answer does not change the reward",
            "P3": "only length counts: junk of the answer's length scores like the answer",
            "P6": "only length counts",
            "P7": "only length counts",
            "P16": "text before the answer adds to the length",
            "P21": "only length counts",
        }

    @property
    def minimum(self) -> float:
        return -1.0

    @property
    def maximum(self) -> float:
        return 0.0

    @property
    def needs_answer(self) -> bool:
        return self.max_tokens is None

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        limit = self.max_tokens
        if limit is None:
            answer_ids = encode(self.answer_of(sample) or "")
            limit = self.slack + ceil(self.answer_ratio * len(answer_ids))
        return Plan.constant(overlong_penalty(len(sample.answer_ids), limit, self.buffer))


def overlong_penalty(tokens: int, limit: int, buffer: int) -> float:
    """0 up to ``limit`` tokens, then falling to -1 over ``buffer`` tokens."""
    return -min(1.0, max(0, tokens - limit) / buffer)
