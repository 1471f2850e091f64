"""Tests whether a reward prefers right answers, with the model that will be trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from remote_trainer.field_paths import find
from remote_trainer.records import EncodedRow
from remote_trainer.references import accepted_answers
from remote_trainer.rewards.combined import RewardFunction
from remote_trainer.rewards.samples import written

ROWS = 16


@dataclass(frozen=True)
class SelfTest:
    """In how many rows the row's own answer scored above the answer of another row."""

    rows: int
    right_above_wrong: int

    @property
    def text(self) -> str:
        """The result as one line."""
        warning = "; training with this reward may reinforce wrong answers" if self.doubtful else ""
        return (
            f"reward self-test: the right answer scores above a wrong one in "
            f"{self.right_above_wrong} of {self.rows} rows{warning}"
        )

    @property
    def doubtful(self) -> bool:
        """Whether the right answer won in at most half of the rows, no better than chance."""
        return 2 * self.right_above_wrong <= self.rows


def self_test(reward: RewardFunction, rows: Sequence[EncodedRow]) -> SelfTest | None:
    """Score right and wrong answers of a few rows; None if no reward needs an answer."""
    with_answer = next((part for part in reward.rewards.values() if part.needs_answer), None)
    if with_answer is None:
        return None
    name = with_answer.answer_field
    known = ((row, accepted_answers(find(row.row.fields, name))) for row in rows)
    chosen = list(islice(((row, accepted) for row, accepted in known if accepted), ROWS))
    texts = [accepted[0] for _, accepted in chosen]
    pairs = []
    for i, (row, accepted) in enumerate(chosen):
        wrong = next((t for t in texts[i + 1 :] + texts[:i] if t not in accepted), None)
        if wrong is not None:
            tokenizer = reward.backend.prompt_tokenizer
            pairs.append((written(tokenizer, row, texts[i]), written(tokenizer, row, wrong)))
    judged = [j.reward for j in reward.judge([sample for pair in pairs for sample in pair])]
    values = list(zip(judged[::2], judged[1::2], strict=True))
    judged_both = [(r, w) for r, w in values if r is not None and w is not None]
    return SelfTest(len(judged_both), sum(r > w for r, w in judged_both)) if judged_both else None
