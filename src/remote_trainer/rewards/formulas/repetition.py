"""Text reward: penalty for repeated word n-grams."""

from typing import Literal

from pydantic import Field

from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.text_statistics import split_words


class Repetition(RewardConfig):
    """Penalty for repeated word n-grams.

    Formula: r = (different n-grams / all n-grams) - 1 over the completion's words (lower case,
    split at white space; in scripts without spaces each character); 0 if there are fewer than n
    words.

    Range: [-1, 0]; empty or truncated gets -1.

    Cost: no forward pass.

    Source: the n-gram repetition penalty of "Demystifying Long Chain-of-Thought Reasoning" (arXiv
    2502.03373), as in open-r1 and TRL.

    Known failure: lists and tables need repetition; use a small weight. In Chinese, Japanese, Thai,
    Khmer, Lao and Burmese n counts characters, and three often repeat: set n to about 6.
    """

    type: Literal["repetition"] = "repetition"
    """This reward."""
    n: int = Field(default=3, gt=0)
    """Words per n-gram."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {
            "P3": "junk without repetition gets no penalty",
            "P7": "only the completion counts",
        }

    @property
    def minimum(self) -> float:
        return -1.0

    @property
    def maximum(self) -> float:
        return 0.0

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        return Plan.constant(repetition_penalty(split_words(sample.answer_text.lower()), self.n))


def repetition_penalty(words: list[str], n: int) -> float:
    """-(1 - different n-grams / all n-grams); 0 if there is no n-gram."""
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) - 1 if grams else 0.0
