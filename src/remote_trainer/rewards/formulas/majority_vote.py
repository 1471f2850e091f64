"""Group reward: agreement with the most frequent answer of the group."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import ClassVar, Literal

from remote_trainer.final_answer import stated_answer
from remote_trainer.records import Encoder, Sample
from remote_trainer.rewards.base import Plan, RewardConfig
from remote_trainer.rewards.formulas.regex import Pattern
from remote_trainer.text_statistics import words_of

Answer = tuple[str, ...]


class MajorityVote(RewardConfig):
    """1 for the most frequent answer among the completions of a prompt, else 0.

    Formula: r = 1 if the completion's answer is the most frequent one among the completions of
    its prompt, else 0; tied answers all get 1. The answer is the completion's words (NFKC, lower
    case, trimmed punctuation, no thinking block), only those of a marked final answer, or the last
    match of `extract`. Empty, truncated and looping completions do not vote.

    Range: {0, 1}; empty or truncated gets 0.

    Cost: no forward pass; needs the whole group.

    Source: TTRL (arXiv 2504.16084); SRT (arXiv 2505.21444).

    Known failure: the model collapses to one constant, wrong answer.
    """

    needs_group: ClassVar[bool] = True
    type: Literal["majority_vote"] = "majority_vote"
    """This reward."""
    extract: Pattern | None = None
    """Regular expression of the answer: its last match, or the first group of that match."""

    @property
    def exceptions(self) -> dict[str, str]:
        return {
            "P3": "the group's most frequent answer counts as right",
            "P7": "only the completions of the group count",
            "P20": "by definition, the other completions decide",
        }

    def plans(self, samples: Sequence[Sample], encode: Encoder) -> list[Plan | None]:
        """One plan per sample, from the votes of all samples with the same prompt ids."""
        answers = [None if self.is_invalid(sample) else self._answer(sample) for sample in samples]
        votes: defaultdict[tuple[int, ...], Counter[Answer]] = defaultdict(Counter)
        for sample, answer in zip(samples, answers, strict=True):
            if answer:
                votes[sample.prompt_ids][answer] += 1
        return [
            Plan.floor(0.0)
            if answer is None
            else Plan.constant(float(_wins(answer, votes[sample.prompt_ids])))
            for sample, answer in zip(samples, answers, strict=True)
        ]

    def _answer(self, sample: Sample) -> Answer:
        """The words of the answer; empty if ``extract`` does not match."""
        if self.extract is None:
            return words_of(stated_answer(sample.answer_text, pattern=sample.answer_pattern))
        found = list(re.finditer(self.extract, sample.answer_text))
        return words_of(found[-1][1 if found[-1].re.groups else 0] or "") if found else ()


def _wins(answer: Answer, votes: Counter[Answer]) -> bool:
    return bool(answer) and votes[answer] == max(votes.values())
