"""Text reward: 1 for exactly the reference answer."""

from typing import Literal

from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.text_statistics import words_of

TEXT_ONLY = "compares texts only; prompt and model do not matter"


class ExactMatch(RewardConfig):
    """1 if the completion is the reference answer, else 0.

    Formula: r = 1 if the words of the completion equal those of the answer, after NFKC, lower case
    and trimmed punctuation, else 0; a thinking block is not compared.

    Range: {0, 1}; empty or truncated gets 0.

    Cost: no forward pass.

    Source: the exact match of SQuAD (arXiv 1606.05250), with Unicode-aware words.

    Known failure: a right answer in a sentence gets 0, so many groups have no signal.
    """

    type: Literal["exact_match"] = "exact_match"
    """This reward."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {
            "P3": "a part of the answer gets 0, as junk does",
            "P7": TEXT_ONLY,
            "P16": "the completion must contain nothing else",
        }

    @property
    def needs_answer(self) -> bool:
        return True

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        same = words_of(sample.answer_text) == words_of(self.answer_of(sample) or "")
        return Plan.constant(float(same))
