"""Names of prompt and answer fields, guessed from the first rows where the config has none."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.data.jsonl import RowFault
from remote_trainer.data.readers import Reader
from remote_trainer.data.rows import (
    COMPLETION,
    CONVERSATION,
    DEFAULT_PROMPT,
    JOINED,
    RowFormat,
)
from remote_trainer.references import accepted_answers, answer_fault

FIRST_ROWS = 100
DEFAULT_ANSWER = "answer"
INSTRUCTION, INPUT = "instruction", "input"
PROMPT_FIELDS = ("question", INSTRUCTION, INPUT, "query", "problem", "text")
ANSWER_FIELDS = (
    *("answers", "output", "response", COMPLETION, "solution", "target", "label"),
    *("reference", "ground_truth", "expected"),
)
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Guess:
    """Field names for the keys of the config that the user did not write."""

    prompt_field: str | None = None
    answer_field: str | None = None
    note: str | None = None
    """What was guessed, for the user."""
    prompts_that_fit: tuple[str, ...] = ()
    """Several candidates, so that none was chosen."""
    answers_that_fit: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, str]:
        """Config key -> guessed field."""
        found = {"prompt_field": self.prompt_field, "answer_field": self.answer_field}
        return {key: name for key, name in found.items() if name is not None}

    def apply(self, config: RunConfig) -> RunConfig:
        """``config`` with the guessed fields, as if the user had written them."""
        if not self.fields:
            return config
        data, rewards = config.data, config.reward
        if data is not None and self.prompt_field is not None:
            data = data.model_copy(update={"prompt_field": self.prompt_field})
        if self.answer_field is not None:
            update = {"answer_field": self.answer_field}
            rewards = [
                reward if _has_answer_field(reward) else reward.model_copy(update=update)
                for reward in rewards
            ]
        return config.model_copy(update={"data": data, "reward": rewards})

    def advise(self, form: RowFormat) -> RowFormat:
        """``form`` with the candidates in its messages."""
        return replace(
            form,
            prompt_advice=form.prompt_advice + _that_fit(self.prompts_that_fit),
            answer_advice=form.answer_advice + _that_fit(self.answers_that_fit),
        )


NO_GUESS = Guess()


def guess_fields(
    reader: Reader, config: RunConfig, evaluates: bool = False, without: str | None = None
) -> Guess:
    """Guess a field that is not written in the config and that no row has under its usual name.

    A candidate is chosen if it is the only one that fits in all of the first rows. The answer is
    guessed for rewards that need one, and for a separate evaluation (``evaluates``). The key
    ``without`` is not looked at.
    """
    unwritten = [reward for reward in config.reward if not _has_answer_field(reward)]
    asks_prompt = config.data is None or "prompt_field" not in config.data.model_fields_set
    asks_answer = any(evaluates or reward.needs_answer for reward in unwritten)
    if not (asks_prompt or asks_answer):
        return NO_GUESS
    rows = [{key: value for key, value in row.items() if key != without} for row in _first(reader)]
    prompts = _prompts(rows) if asks_prompt else ()
    chosen = prompts[0] if len(prompts) == 1 else None
    usual = config.data.prompt_field if config.data else DEFAULT_PROMPT
    answers = _answers(rows, chosen or usual) if asks_answer else ()
    answer = answers[0] if len(answers) == 1 else None
    return Guess(
        chosen,
        answer,
        _note(reader.name, rows, chosen, answer),
        prompts if chosen is None else (),
        answers if answer is None else (),
    )


def _has_answer_field(reward: Any) -> bool:
    return "answer_field" in reward.model_fields_set


def _first(reader: Reader) -> Iterator[Mapping[str, Any]]:
    """The first rows; bad ones are reported later."""
    for record in islice(reader.records(), FIRST_ROWS):
        try:
            yield record.value()
        except RowFault:
            continue


def _prompts(rows: Rows) -> tuple[str, ...]:
    """Candidates that fit in all rows; none if a row has its prompt under a usual name."""
    if any(row.get(name) is not None for row in rows for name in (DEFAULT_PROMPT, CONVERSATION)):
        return ()
    fit = that_hold(rows, PROMPT_FIELDS, is_prompt)
    if INSTRUCTION in fit and any(INPUT in row for row in rows):
        joined = f"{INSTRUCTION}{JOINED}{INPUT}"
        return (joined, *(name for name in fit if name not in (INSTRUCTION, INPUT)))
    return fit


def _answers(rows: Rows, prompt_field: str) -> tuple[str, ...]:
    """Candidates that fit in all rows; none if a row has an answer under the usual name, or as
    the last turn of a conversation."""
    # As an answer field, `completion` is not a reserved key.
    form = RowFormat(prompt_field, (DEFAULT_ANSWER, COMPLETION))
    for row in rows:
        try:
            if accepted_answers(form.read(row, "").fields.get(DEFAULT_ANSWER)):
                return ()
        except RowFault:
            continue
    names = [name for name in ANSWER_FIELDS if name not in prompt_field.split(JOINED)]
    return that_hold(rows, names, is_answer)


def that_hold(rows: Rows, names: Sequence[str], fits: Callable[[Any], bool]) -> tuple[str, ...]:
    """The names whose value fits in every row."""
    return tuple(name for name in names if rows and all(fits(row.get(name)) for row in rows))


def is_prompt(value: Any) -> bool:
    """Whether a value can be a prompt: text, or a list of messages."""
    if isinstance(value, str):
        return bool(value.strip())
    messages = value if isinstance(value, list) else []
    return bool(messages) and all(isinstance(each, dict) and "role" in each for each in messages)


def is_answer(value: Any) -> bool:
    """Whether a value can be a reference answer."""
    return bool(accepted_answers(value)) and answer_fault(value) is None


def _note(name: str, rows: Rows, prompt: str | None, answer: str | None) -> str | None:
    """One line about the guess."""
    keys = {"data.prompt_field": prompt, "reward.answer_field": answer}
    guessed = {key: field for key, field in keys.items() if field is not None}
    if not guessed:
        return None
    used = {part for field in guessed.values() for part in field.split(JOINED)}
    others = sorted({key for row in rows for key in row} - used)
    unused = f"; other keys: {', '.join(others)}" if others else ""
    return (
        f"guessed from the first rows of {name}: "
        f"{', '.join(f'{key}: {field}' for key, field in guessed.items())} "
        f"(write {' and '.join(guessed)} to choose{unused})"
    )


def _that_fit(names: Sequence[str]) -> str:
    return f": {' and '.join(map(repr, names))} fit" if names else ""
