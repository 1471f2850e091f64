"""Text reward: character n-grams shared by completion and reference answer."""

from functools import cache
from typing import Any, Literal

from pydantic import Field

from remote_trainer.final_answer import matched
from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.rewards.formulas.exact_match import TEXT_ONLY


class ChrF(RewardConfig):
    """Character n-gram F-score of the completion against the answer, for sentences.

    Formula: r = chrF / 100 as sacrebleu computes it: n-grams of 1 to 6 characters, recall counted
    beta = 2 times as much as precision; `word_order: 2` is chrF++.

    Range: [0, 1]; empty or truncated gets 0.

    Cost: no forward pass.

    Source: chrF (Popovic 2015, aclanthology.org/W15-3049), as computed by sacrebleu.

    Known failure: it compares spelling, not meaning: a wrong answer in similar words scores well.
    It is case sensitive.
    """

    type: Literal["chrf"] = "chrf"
    """This reward."""
    word_order: int = Field(default=0, ge=0, le=4)
    """Maximum length of word n-grams, which count besides characters; 0: none."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {"P7": TEXT_ONLY}

    @property
    def needs_answer(self) -> bool:
        return True

    def plan(self, sample: Sample, encode: Encoder) -> Plan | None:
        metric = _metric(self.word_order)
        said = matched(sample.answer_text, sample.answer_pattern)
        score = metric.sentence_score(said, [self.answer_of(sample)]).score
        return Plan.constant(min(1.0, score / 100))


@cache
def _metric(word_order: int) -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF(word_order=word_order)
