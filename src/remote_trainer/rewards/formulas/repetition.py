"""Text reward: completions that do not repeat themselves."""

from typing import Literal

from pydantic import Field

from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.text_statistics import split_words


class Repetition(RewardConfig):
    """A price on word n-grams that were said before.

    Formula: r = (different n-grams / all n-grams) - 1 over the completion's words (lower case,
    split at white space; in scripts without blanks each character); 0 where there are fewer than n
    words.

    Range: [-1, 0]; empty or truncated gets -1.

    Cost: no forward pass.

    Source: the n-gram repetition penalty of "Demystifying Long Chain-of-Thought Reasoning" (arXiv
    2502.03373), as open-r1 and TRL offer it.

    Known failure: lists and tables repeat honestly; use a small weight. In Chinese,
    Japanese, Thai, Khmer, Lao and Burmese three characters come again soon: raise n to 6 or so.
    """

    type: Literal["repetition"] = "repetition"
    """This reward."""
    n: int = Field(default=3, gt=0)
    """Words of one n-gram."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {
            "P3": "junk that does not repeat is not seen",
            "P7": "the text alone counts",
        }

    @property
    def minimum(self) -> float:
        return -1.0

    @property
    def maximum(self) -> float:
        return 0.0

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        return Plan.settled(repetition_price(split_words(sample.answer_text.lower()), self.n))


def repetition_price(words: list[str], n: int) -> float:
    """-(1 - different n-grams / all n-grams); 0 where there is none."""
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) - 1 if grams else 0.0
