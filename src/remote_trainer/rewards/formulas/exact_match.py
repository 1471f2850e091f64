"""Text reward: 1 for exactly the reference answer."""

from typing import Literal

from remote_trainer.final_answer import same_number, stated_answer
from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.text_statistics import words_of

TEXT_ONLY = "compares texts only; prompt and model do not matter"


class ExactMatch(RewardConfig):
    """1 if the completion's final answer is the reference answer, else 0.

    Formula: r = 1 if the words of the completion equal those of the answer, after NFKC, lower case
    and trimmed punctuation, or both are the same number, else 0. If the completion marks its final
    answer (`\\boxed{...}`, `####` in the last line, `data.answer_pattern`), only that is compared;
    a thinking block is not.

    Range: {0, 1}; empty or truncated gets 0.

    Cost: no forward pass.

    Source: the exact match of SQuAD (arXiv 1606.05250), with Unicode-aware words.

    Known failure: a right answer in a sentence that does not mark it gets 0, so many groups have
    no signal.
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
        wanted = self.answer_of(sample) or ""
        said = stated_answer(sample.answer_text, wanted, sample.answer_pattern)
        same = words_of(said) == words_of(wanted) or same_number(said, wanted)
        return Plan.constant(float(same))
