"""Text reward: words shared by completion and reference answer."""

from collections import Counter
from typing import Literal

from remote_trainer.final_answer import matched
from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.rewards.formulas.exact_match import TEXT_ONLY
from remote_trainer.text_statistics import words_of


class TokenF1(RewardConfig):
    """Overlap of the completion's words with the answer's.

    Formula: with n words in common (repeats counted), r = 2 n / (words of the completion + words
    of the answer), the harmonic mean of precision and recall; words after NFKC, lower case and
    trimmed punctuation, without a thinking block; in scripts without spaces (Chinese, Japanese,
    Thai, Khmer, Lao, Burmese) each character is a word.

    Range: [0, 1]; empty or truncated gets 0.

    Cost: no forward pass.

    Source: the F1 of SQuAD (arXiv 1606.05250).

    Known failure: word order and meaning do not count; "not Paris" overlaps with "Paris".
    """

    type: Literal["token_f1"] = "token_f1"
    """This reward."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {"P7": TEXT_ONLY}

    @property
    def needs_answer(self) -> bool:
        return True

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        said = matched(sample.answer_text, sample.answer_pattern)
        return Plan.constant(f1(words_of(said), words_of(self.answer_of(sample) or "")))


def f1(words: tuple[str, ...], reference: tuple[str, ...]) -> float:
    """F1 of the words, in [0, 1]; 0 if neither text has words."""
    common = (Counter(words) & Counter(reference)).total()
    return 2 * common / max(1, len(words) + len(reference))
