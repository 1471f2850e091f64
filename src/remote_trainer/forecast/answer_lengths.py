"""How long the reference answers are, as tokens; needs a tokenizer, but no model."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from remote_trainer.config import RunConfig
from remote_trainer.records import Row
from remote_trainer.references import accepted_answers
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

MOST_ROWS = 1000


@dataclass(frozen=True)
class AnswerLengths:
    """Tokens of the shortest accepted answer of each row."""

    median: float
    over_limit: float
    """Share of rows whose answer is longer than training.max_completion_length."""


def answer_lengths(
    config: RunConfig, rows: Sequence[Row], tokenizer: PromptTokenizer
) -> AnswerLengths | None:
    """Of up to `MOST_ROWS` evenly spaced rows; None where none has a reference answer."""
    count = min(len(rows), MOST_ROWS)
    some = (rows[i * len(rows) // count] for i in range(count))
    accepted = [accepted_answers(row.fields.get(config.answer_field)) for row in some]
    lengths = [
        min(len(tokenizer.encode(answer)) for answer in answers) for answers in accepted if answers
    ]
    if not lengths:
        return None
    limit = config.training.max_completion_length
    return AnswerLengths(median(lengths), fmean(length > limit for length in lengths))
