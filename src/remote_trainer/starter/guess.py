"""Guesses which keys of data rows hold the prompt and the reference answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote_trainer.data import guess
from remote_trainer.data.guess import DEFAULT_ANSWER, is_answer, is_prompt, that_hold
from remote_trainer.data.jsonl import RowFault
from remote_trainer.data.messages import read_messages, split_answer
from remote_trainer.data.rows import CONVERSATION, DEFAULT_PROMPT
from remote_trainer.errors import Problem, UserInputError

PROMPT_FIELDS = (DEFAULT_PROMPT, *guess.PROMPT_FIELDS)
ANSWER_FIELDS = (DEFAULT_ANSWER, *guess.ANSWER_FIELDS)

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Fields:
    """Keys of data rows."""

    prompt: str = DEFAULT_PROMPT
    answer: str | None = DEFAULT_ANSWER
    """None: the rows have no reference answers."""
    conversations: bool = False
    """The prompts are in `messages`, whose last turn may be the answer."""


def guess_fields(rows: Rows, file: str) -> Fields:
    """The keys that fit all ``rows``, of which there is at least one.

    A candidate fits if every row has a value for it. A default key that fits is taken; otherwise
    exactly one candidate must fit. Raises UserInputError if there is no prompt, or no single one.
    """
    if all(_is_conversation(row.get(CONVERSATION)) for row in rows):
        answered = all(_has_reply(row[CONVERSATION]) for row in rows)
        return Fields(answer=DEFAULT_ANSWER if answered else None, conversations=True)
    prompts = _fitting(PROMPT_FIELDS, rows, is_prompt)
    answers = _fitting(ANSWER_FIELDS, rows, is_answer)
    problems = []
    if len(prompts) != 1:
        problems.append(Problem(file, _which(prompts, "prompt", PROMPT_FIELDS, rows)))
    if len(answers) > 1:
        problems.append(Problem(file, _which(answers, "answer", ANSWER_FIELDS, rows)))
    if problems:
        raise UserInputError(problems)
    return Fields(prompts[0], answers[0] if answers else None)


def _fitting(names: Sequence[str], rows: Rows, fits: Callable[[Any], bool]) -> list[str]:
    """Candidates that fit all rows; only the default one, the first of ``names``, if it fits."""
    found = list(that_hold(rows, names, fits))
    return found[:1] if found[:1] == [names[0]] else found


def _which(found: Sequence[str], use: str, names: Sequence[str], rows: Rows) -> str:
    """The message if not exactly one key fits."""
    if found:
        return (
            f"{' and '.join(map(repr, found))} could each be the {use}; rename the right one to "
            f"{names[0]!r}"
        )
    keys = ", ".join(sorted({key for row in rows for key in row})) or "none"
    return (
        f"no key holds the {use} of each of the first {len(rows)} rows; found keys: {keys}; rename "
        f"one to {names[0]!r} (or to one of: {', '.join(names[1:])}, {CONVERSATION})"
    )


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, dict) for x in value)


def _has_reply(conversation: list[Any]) -> bool:
    """Whether the last turn is an answer of the assistant."""
    try:
        return split_answer(read_messages(conversation))[1] is not None
    except RowFault:  # `check` describes it with its line
        return False
