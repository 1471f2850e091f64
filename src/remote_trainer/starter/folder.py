"""Makes the folder of `remote-trainer init`: all of it or nothing."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.config.json_schema import config_schema
from remote_trainer.data import load_data
from remote_trainer.data.jsonl import Faults, RowFault
from remote_trainer.data.readers import open_reader
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.paths import why_no_folder
from remote_trainer.progress import OnProgress
from remote_trainer.records import Row
from remote_trainer.references import accepted_answers
from remote_trainer.run_dir import new_folder, temporary_folder, write_json, write_text
from remote_trainer.starter.config_text import SCHEMA_FILE, commented_config
from remote_trainer.starter.guess import ANSWER_FIELDS, Fields, guess_fields
from remote_trainer.starter.next_steps import next_steps
from remote_trainer.starter.settings import (
    LIMIT_WITHOUT_ANSWERS,
    SHORTEST_LIMIT,
    completion_limit,
    starting_settings,
)

CONFIG_FILE, DATA_FILE, STEPS_FILE = "config.yaml", "data.jsonl", "NEXT_STEPS.md"
GUESSED_ROWS = 100
COPIED_BYTES = 100_000_000
"""A larger data file, or a folder, is not copied; the config gets its relative path."""
SAMPLE_SYSTEM_PROMPT = "You are a quiz bot. You reply with one or two words."


def start_folder(
    folder: Path,
    supervised: bool | None = None,
    source: Path | None = None,
    on_progress: OnProgress | None = None,
) -> list[str]:
    """Write config, data and next steps into ``folder``; returns what was chosen, in sentences.

    ``source`` is a file or folder of data; None: a sample of the shipped data. ``supervised`` None:
    true for the sample and for data with reference answers.

    Raises UserInputError with every problem of the folder and of the data.
    """
    why = _why_not(folder)
    problems = [Problem(str(folder), why)] if why else []
    try:
        data = source or _sample(supervised is not False)
        fields = _fields_of(data) if source else Fields()
        supervised = _mode(supervised, fields, data)
        system_prompt = None if source else SAMPLE_SYSTEM_PROMPT
        values = starting_settings(str(data), fields, supervised, SHORTEST_LIMIT, system_prompt)
        rows = load_data(RunConfig.model_validate(values), on_progress).train[:GUESSED_ROWS]
    except UserInputError as error:
        raise UserInputError([*problems, *error.problems]) from None
    if problems:
        raise UserInputError(problems)
    limit = _limit(list(rows), fields) if supervised or not source else LIMIT_WITHOUT_ANSWERS
    copy = Path(DATA_FILE).with_suffix(data.suffix).name if _is_copied(data) else None
    train = copy or os.path.relpath(data.resolve(), folder.resolve())
    values = starting_settings(train, fields, supervised, limit, system_prompt)
    with _whole_folder(folder) as place:
        if copy is not None:
            shutil.copyfile(data, place / copy)
        _write(place, values, fields)
    return [*_about_data(source, copy, train, fields), _about_mode(supervised, fields)]


def _why_not(folder: Path) -> str | None:
    if folder.is_dir() and any(folder.iterdir()):
        return "exists and is not empty; write the name of a new folder"
    return why_no_folder(folder)


def _sample(supervised: bool) -> Path:
    name = "sample_supervised.jsonl" if supervised else "sample_unsupervised.jsonl"
    return Path(__file__).with_name(name)


def _fields_of(file: Path) -> Fields:
    """Guessed from the first rows; raises UserInputError."""
    problems: list[Problem] = []
    reader = open_reader(str(file), problems)
    faults, rows = Faults(str(file)), []
    for record in islice(reader.records(), GUESSED_ROWS) if reader else ():
        try:
            rows.append(record.value())
        except RowFault as fault:
            where = reader.where(record.position, record.number) if reader else ""
            faults.add(where, str(fault))
    problems.extend(faults.problems())
    if reader and not problems and not rows:
        problems.append(Problem(str(file), f"the file has no rows; {reader.wanted}"))
    if problems:
        raise UserInputError(problems)
    return guess_fields(rows, str(file))


def _mode(supervised: bool | None, fields: Fields, file: Path) -> bool:
    """Whether the rewards use reference answers."""
    if supervised is None:
        return fields.answer is not None
    if supervised and fields.answer is None:
        raise UserInputError.at(
            "--supervised",
            f"not every row of {file} has a reference answer in the same key; add a key "
            f"{ANSWER_FIELDS[0]!r}, or write --unsupervised",
        )
    return supervised


def _limit(rows: Sequence[Row], fields: Fields) -> int:
    answers = [accepted_answers(row.fields.get(fields.answer or "")) for row in rows]
    return completion_limit(max((len(text) for each in answers for text in each), default=0))


def _is_copied(data: Path) -> bool:
    return data.is_file() and data.stat().st_size <= COPIED_BYTES


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder; its files appear in ``folder`` if the block succeeds."""
    if not folder.exists():
        with new_folder(folder) as place:
            yield place
        return
    # An empty folder is kept: it may be a mount point, or the working directory of a shell.
    with temporary_folder(folder / "new") as place:
        yield place
        for file in place.iterdir():
            os.replace(file, folder / file.name)


def _write(place: Path, values: dict[str, Any], fields: Fields) -> None:
    write_text(place / CONFIG_FILE, commented_config(values))
    write_json(place / SCHEMA_FILE, config_schema())
    write_text(place / STEPS_FILE, next_steps(values, fields))


def _about_data(source: Path | None, copy: str | None, train: str, fields: Fields) -> list[str]:
    if source is None:
        return [f"{DATA_FILE}: a sample of the shipped questions (CC0-1.0)"]
    first = f"{copy}: a copy of {source}" if copy else f"data.train: {train} (not copied)"
    guessed = f"data.prompt_field: {fields.prompt}"
    if fields.conversations:
        guessed = "prompts: conversations in `messages`"
    return [first, f"{guessed} (guessed from the first {GUESSED_ROWS} rows)"]


def _about_mode(supervised: bool, fields: Fields) -> str:
    if not supervised:
        return "unsupervised: the reward needs prompts only"
    return f"supervised: the reference answers are in answer_field: {fields.answer}"
