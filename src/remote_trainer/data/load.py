"""Data sources -> rows for training and for evaluation, or every problem at once."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.data.guess import NO_GUESS, Guess, guess_fields
from remote_trainer.data.jsonl import Faults, RowFault, shown
from remote_trainer.data.readers import Reader, open_reader
from remote_trainer.data.row_file import FileRows, Scan, Tally, scan
from remote_trainer.data.rows import COMPLETION, RowFormat
from remote_trainer.data.split import hold_out, in_both
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.processes import process_count
from remote_trainer.progress import OnProgress
from remote_trainer.records import Row

LIMITED, SAME_PROMPT = "beyond evaluation.rows", "same prompt as a held-out row"
PLACES_SHOWN = 3


@dataclass(frozen=True)
class Source:
    """One file, folder or dataset and its use: which rows were dropped and why."""

    file: str
    sha256: str
    read: int
    left_out: Tally
    noted: Tally = field(default_factory=Tally)
    """Rows whose answers are not plain text, by kind."""
    guess: Guess = NO_GUESS
    """Fields that the config does not name."""


@dataclass(frozen=True)
class Dataset:
    """Training rows and held-out rows (none without evaluation).

    Rows stay in their files and are read and parsed on access.
    """

    train: FileRows
    eval: FileRows
    train_source: Source
    eval_source: Source | None
    """None if nothing is held out."""
    held_out_of_train: bool = False
    also_in_train: Tally = field(default_factory=Tally)
    """Held-out rows whose prompt is also in the training rows, under the key ``rows``."""
    notes: tuple[str, ...] = ()
    """Notes about the held-out rows for the user."""

    @property
    def sha256(self) -> str:
        """Identity of all data of a run."""
        parts = [self.train_source.sha256, self.eval_source.sha256 if self.eval_source else ""]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class ScoreRow:
    """A completion to score."""

    row: Row
    completion: str
    given: dict[str, Any]
    """The whole line, for the output."""


def load_data(config: RunConfig, on_progress: OnProgress | None = None) -> Dataset:
    """Read, check and split the files of a config.

    Fields that the config does not name are guessed (`guess_fields`). Raises UserInputError that
    lists every bad row, and settings that do not fit the rows.
    """
    settings = config.with_data()
    problems: list[Problem] = []
    reader = open_reader(settings.train, problems)
    guess = guess_fields(reader, config) if reader else NO_GUESS
    config = guess.apply(config)
    train = _scan_train(reader, config, guess, problems, on_progress)
    if settings.eval == "auto":
        data = _split(train, config)
    else:
        held_out = None
        if settings.eval not in (None, "none"):
            opened = open_reader(settings.eval, problems)
            held_out = _scan_eval(opened, settings.eval, config, problems, on_progress)
        data = _joined(train, held_out, config)
    data = _with_guess(data, guess)
    needed = config.training.prompts_per_update * process_count()
    if not problems and len(data.train) < needed:
        problems.append(
            Problem(
                settings.train,
                f"only {len(data.train)} usable rows, but one update needs {needed} prompts "
                "(training.per_device_train_batch_size x training.gradient_accumulation_steps); "
                "lower these settings or add rows",
            )
        )
    if problems:
        raise UserInputError(problems)
    return data


def load_eval_rows(path: Path, config: RunConfig) -> tuple[FileRows, Source]:
    """Rows of one data source for a separate evaluation; raises UserInputError."""
    problems: list[Problem] = []
    reader = open_reader(str(path), problems)
    guess = guess_fields(reader, config, evaluates=True) if reader else NO_GUESS
    found = _scan_eval(reader, str(path), guess.apply(config), problems, None, guess)
    if problems:
        raise UserInputError(problems)
    return FileRows(found.rows), replace(_source(found), guess=guess)


def load_score_rows(path: Path, config: RunConfig) -> tuple[list[ScoreRow], Guess]:
    """Completions to score; raises UserInputError that lists every bad row."""
    problems: list[Problem] = []
    reader = open_reader(str(path), problems)
    guess = guess_fields(reader, config, without=COMPLETION) if reader else NO_GUESS
    rows = _read_score_rows(reader, config, guess, problems) if reader else []
    if problems:
        raise UserInputError(problems)
    return rows, guess


def _read_score_rows(
    reader: Reader, config: RunConfig, guess: Guess, problems: list[Problem]
) -> list[ScoreRow]:
    names = tuple(_required(guess.apply(config)))
    prompt_field = config.data.prompt_field if config.data else RowFormat.prompt_field
    form = RowFormat(
        guess.prompt_field or prompt_field,
        names,
        names,
        also_prompt=True,
        answer_pattern=config.data.answer_pattern if config.data else None,
    )
    form = guess.advise(form)
    faults, rows = Faults(reader.name), []
    for record in reader.records():
        where = reader.where(record.position, record.number)
        try:
            rows.append(_score_row(record.value(), form, where))
        except RowFault as fault:
            faults.add(where, str(fault))
    problems.extend(faults.problems())
    if not problems and not rows:
        problems.append(Problem(reader.name, f"the file has no rows; {reader.wanted}"))
    return rows


def _score_row(given: dict[str, Any], form: RowFormat, where: str) -> ScoreRow:
    completion = given.get(COMPLETION)
    if isinstance(completion, list) and all(isinstance(turn, dict) for turn in completion):
        texts = [turn.get("content") for turn in completion]
        completion = "".join(map(str, texts)) if all(isinstance(t, str) for t in texts) else None
    faults = []
    if not isinstance(completion, str):
        faults.append(f"{COMPLETION!r} is {shown(given.get(COMPLETION))}; write a string")
    try:
        row = form.read({k: v for k, v in given.items() if k != COMPLETION}, where)
    except RowFault as fault:
        faults.append(str(fault))
    if faults:
        raise RowFault("; ".join(faults))
    assert isinstance(completion, str), "other types raise RowFault"
    return ScoreRow(row, completion, given)


def _required(config: RunConfig) -> list[str]:
    return sorted({reward.answer_field for reward in config.reward if reward.needs_answer})


def _row_format(config: RunConfig, checked: Sequence[str], guess: Guess) -> RowFormat:
    names = sorted({*_required(config), config.answer_field})
    data = config.with_data()
    form = RowFormat(
        data.prompt_field, tuple(names), tuple(checked), answer_pattern=data.answer_pattern
    )
    return guess.advise(form)


def _scan_train(
    reader: Reader | None,
    config: RunConfig,
    guess: Guess,
    problems: list[Problem],
    on_progress: OnProgress | None,
) -> Scan:
    settings, required = config.with_data(), _required(config)
    form = _row_format(config, required, guess)
    if reader is None:
        return Scan.unopened(settings.train, form)
    return scan(reader, form, settings.system_prompt, problems, required, on_progress)


def _scan_eval(
    reader: Reader | None,
    name: str,
    config: RunConfig,
    problems: list[Problem],
    on_progress: OnProgress | None,
    guess: Guess = NO_GUESS,
) -> Scan:
    """Evaluation rows, including those without a reference, which some rewards do not need."""
    system_prompt = config.with_data().system_prompt
    form = _row_format(config, (config.answer_field,), guess)
    if reader is None:
        return Scan.unopened(name, form)
    return scan(reader, form, system_prompt, problems, on_progress=on_progress)


def _split(found: Scan, config: RunConfig) -> Dataset:
    """Train and held-out rows of one file."""
    settings = config.with_data()
    split = hold_out(found.rows.fingerprints, config.training.seed)
    train, held_out = FileRows(found.rows, split.train), FileRows(found.rows, split.eval)
    for source in FileRows(found.rows, split.beyond).sources():
        found.left_out.add(SAME_PROMPT, source)
    notes = []
    distinct = len(set(held_out.fingerprints()))
    if len(found.rows) > 1 and not len(held_out):
        notes.append(
            f"no rows are held out: all {len(train)} rows of {settings.train} have the same "
            "prompt, so there is no evaluation of whether training helped; write data.eval: "
            "<file>"
        )
    elif distinct < len(held_out):
        notes.append(
            f"the {len(held_out)} held-out rows have {distinct} different prompt"
            f"{'s' if distinct > 1 else ''}: rows with the same prompt are held out together"
        )
    own = Source(found.rows.name, found.sha256, len(held_out), Tally())
    held_out = _limited(held_out, config, own.left_out)
    used = own if len(held_out) else None
    return Dataset(train, held_out, _source(found), used, True, notes=tuple(notes))


def _joined(train: Scan, held_out: Scan | None, config: RunConfig) -> Dataset:
    """Rows of two files, with their common prompts."""
    rows = FileRows(train.rows)
    if held_out is None:
        return Dataset(rows, FileRows(train.rows, ()), _source(train), None)
    chosen = _limited(FileRows(held_out.rows), config, held_out.left_out)
    common = in_both(rows.fingerprints(), chosen.fingerprints())
    also = Tally()
    for place in chosen.places:
        if held_out.rows.fingerprints[place] in common:
            also.add("rows", held_out.rows.source(place))
    notes = (_warning(also, len(chosen), config),) if also else ()
    return Dataset(rows, chosen, _source(train), _source(held_out), False, also, notes)


def _warning(also: Tally, rows: int, config: RunConfig) -> str:
    count, places = also.counts["rows"], also.places["rows"]
    more = ", ..." if count > PLACES_SHOWN else ""
    return (
        f"{count} of {rows} held-out rows have a prompt that is also in the training rows "
        f"({', '.join(places[:PLACES_SHOWN])}{more}): the evaluation partly measures memorised "
        f"answers; remove them from {config.with_data().train}, or write data.eval: auto"
    )


def _limited(rows: FileRows, config: RunConfig, left_out: Tally) -> FileRows:
    """The first ``evaluation.rows`` held-out rows; the others are counted."""
    kept = rows[: config.evaluation.rows]
    for source in rows[len(kept) :].sources():
        left_out.add(LIMITED, source)
    return kept


def _source(found: Scan) -> Source:
    return Source(found.rows.name, found.sha256, found.read, found.left_out, found.noted)


def _with_guess(data: Dataset, guess: Guess) -> Dataset:
    notes = data.notes if guess.note is None else (guess.note, *data.notes)
    return replace(data, train_source=replace(data.train_source, guess=guess), notes=notes)
