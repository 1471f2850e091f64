"""Renders prompts with the chat template and measures their length; truncates nothing."""

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.data.encoded_rows import EncodedRows, as_messages, rendered, unseen
from remote_trainer.data.jsonl import Faults
from remote_trainer.data.lengths import histogram
from remote_trainer.data.load import Dataset, Source
from remote_trainer.data.places import file_of
from remote_trainer.data.refusals import NO_TEMPLATE, Refusals, fault_problem
from remote_trainer.data.row_file import FileRows, Tally
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.processes import process_count
from remote_trainer.progress import OnProgress
from remote_trainer.records import Row, TokenIds
from remote_trainer.tokenization.prompt_tokenizer import (
    FaultyTemplate,
    PromptTokenizer,
    TemplateRefusal,
)
from remote_trainer.tokenization.token_bound import TokenBound, token_bound

__all__ = ["CHECKED_ROWS", "EncodedData", "as_messages", "encode_data", "encode_rows"]

CHECKED_ROWS = 50_000
"""Maximum rows that `check` measures; a random sample of larger files."""
COMPARED_ROWS = 1000
BATCH = 512
TOO_LONG = "prompt too long"
BOS_TOKENS = 1  # prepended to literal text


@dataclass(frozen=True)
class EncodedData:
    """Rows with prompt ids, and a report of kept and dropped rows."""

    train: EncodedRows
    eval: EncodedRows
    report: dict[str, Any]
    notes: tuple[str, ...] = ()
    """Parts of the rows that the chat template ignores."""

    def by(self, prompt_tokenizer: PromptTokenizer) -> "EncodedData | None":
        """The same rows with the tokenizer of a loaded model. None if all rows must be measured
        again: there are few, or the two tokenizers differ on a thousand of them."""
        rows = len(self.train)
        if rows <= CHECKED_ROWS or not self.train.agree(prompt_tokenizer, COMPARED_ROWS):
            return None
        return replace(
            self, train=self.train.by(prompt_tokenizer), eval=self.eval.by(prompt_tokenizer)
        )


@dataclass
class _Measured:
    """Results of measuring some rows."""

    of: int
    """Total number of rows, measured or not."""
    kept: "array[int]" = field(default_factory=lambda: array("I"))
    """Indices of rows that are short enough."""
    lengths: "array[int]" = field(default_factory=lambda: array("I"))
    """Prompt lengths in tokens of the rows that are tokenised for the report."""
    too_long: Tally = field(default_factory=Tally)
    tokenised: set[int] | None = None
    """Indices of rows that are tokenised for the report; None: all."""

    def keep(self, place: int, ids: TokenIds | None) -> None:
        """Record a row that is short enough."""
        self.kept.append(place)
        if ids is not None and (self.tokenised is None or place in self.tokenised):
            self.lengths.append(len(ids))

    @property
    def scale(self) -> float:
        """Total rows per measured row; 1 if all were measured."""
        seen = len(self.kept) + self.too_long.counts[TOO_LONG]
        return self.of / seen if seen else 1.0


def encode_data(
    data: Dataset,
    prompt_tokenizer: PromptTokenizer,
    config: RunConfig,
    most: int | None = None,
    on_progress: OnProgress | None = None,
) -> EncodedData:
    """Render every prompt; overlong ones are dropped or refused, depending on the config.

    With ``most``, only a random sample of that size and one row of each shape are measured; the
    report says so, and the rows must not be used. With ``overlong_prompts: refuse`` all rows are
    measured. ``on_progress`` is called with rows done and total rows.

    Raises UserInputError for overlong prompts under ``refuse``, for prompts that the chat template
    refuses, for message prompts without a template, and for too few rows for one update.
    """
    problems: list[Problem] = []
    if config.with_data().overlong_prompts == "refuse":
        most = None
    encode = _Encoding(prompt_tokenizer, config, problems)
    train = encode.measure(data.train, _places(data.train, most), on_progress)
    held_out = encode.measure(data.eval, _places(data.eval, most))
    kept = round(len(train.kept) * train.scale)
    needed = config.training.prompts_per_update * process_count()
    if kept < needed and not problems:
        problems.append(
            Problem(
                config.with_data().train,
                f"{kept} rows remain after dropping {train.too_long.counts[TOO_LONG]} prompts "
                f"longer than training.max_prompt_length={config.training.max_prompt_length} "
                f"tokens, but one update needs {needed}",
            )
        )
    if problems:
        raise UserInputError(problems)
    report = {"train": _report(data.train_source, train)}
    if data.eval_source:
        held_out_rows = data.eval_source.read if data.held_out_of_train else 0
        report["train"]["rows_held_out"] = held_out_rows
        report["eval"] = {
            **_report(data.eval_source, held_out),
            "held_out_of_train": data.held_out_of_train,
            "also_in_train": {
                "rows": data.also_in_train.counts["rows"],
                "lines": data.also_in_train.places.get("rows", []),
            },
        }
    return EncodedData(
        encode.rows(data.train, train),
        encode.rows(data.eval, held_out),
        report,
        tuple(encode.notes(data.train, data.eval)),
    )


def encode_rows(
    rows: Sequence[Row],
    prompt_tokenizer: PromptTokenizer,
    config: RunConfig,
    problems: list[Problem],
) -> tuple[EncodedRows, list[str]]:
    """(rows with prompt ids, ``file:line`` of dropped ones); refusals go to ``problems``."""
    encode = _Encoding(prompt_tokenizer, config, problems)
    found = encode.measure(rows, range(len(rows)))
    return encode.rows(rows, found), found.too_long.places.get(TOO_LONG, [])


class _Encoding:
    """State that all rows of a run share."""

    def __init__(
        self, prompt_tokenizer: PromptTokenizer, config: RunConfig, problems: list[Problem]
    ) -> None:
        self._prompt_tokenizer = prompt_tokenizer
        self._data = config.with_data()
        self._limit = config.training.max_prompt_length
        self._problems = problems
        self._bound: TokenBound | None = None

    def rows(self, rows: Sequence[Row], found: _Measured) -> EncodedRows:
        return EncodedRows(rows, found.kept, self._prompt_tokenizer, self._data.system_prompt)

    def measure(
        self,
        rows: Sequence[Row],
        places: Sequence[int],
        on_progress: OnProgress | None = None,
    ) -> _Measured:
        """Find the rows that are short enough, in batches.

        Of many rows a sample is tokenised for the report; the others are tokenised only if they
        may be too long (see `token_bound`).
        """
        found, faults = _Measured(len(rows)), Faults(_file_of(rows))
        refusals = Refusals(self._prompt_tokenizer, self._data.system_prompt)
        if len(places) > CHECKED_ROWS and (bound := token_bound(self._prompt_tokenizer.tokenizer)):
            self._bound, found.tokenised = bound, {*_drawn(len(rows), CHECKED_ROWS)}
        try:
            for start in range(0, len(places), BATCH):
                batch = [(place, rows[place]) for place in places[start : start + BATCH]]
                self._measure_batch(batch, found, faults, refusals)
                if on_progress:
                    on_progress(min(start + BATCH, len(places)), len(places))
        except FaultyTemplate as fault:
            self._note(fault_problem(fault))
        for problem in (*faults.problems(), *refusals.problems()):
            self._note(problem)
        return found

    def _note(self, problem: Problem) -> None:
        """Both parts of the data may have the same problem."""
        if problem not in self._problems:
            self._problems.append(problem)

    def _measure_batch(
        self,
        batch: Sequence[tuple[int, Row]],
        found: _Measured,
        faults: Faults,
        refusals: Refusals,
    ) -> None:
        ready = [(place, row) for place, row in batch if self._can_be_rendered(row, faults)]
        rows = [self._rendered(row) for _, row in ready]
        surely_short = [
            self._is_short(place, row, found) for (place, _), row in zip(ready, rows, strict=True)
        ]
        open_rows = [row for row, short in zip(rows, surely_short, strict=True) if not short]
        encoded = iter(
            self._prompt_tokenizer.encode_prompts(
                [row.prompt for row in open_rows], [row.tools for row in open_rows]
            )
        )
        for (place, row), short in zip(ready, surely_short, strict=True):
            ids = None if short else next(encoded)
            if isinstance(ids, TemplateRefusal):
                refusals.add(row, self._rendered(row).prompt, ids, row.tools)
            elif ids is None or len(ids) <= self._limit:
                found.keep(place, ids)
            else:
                found.too_long.add(TOO_LONG, row.source)
                self._note_length(row, len(ids), faults)

    def _is_short(self, place: int, row: Row, found: _Measured) -> bool:
        """Whether a row is surely short enough, without tokenising it."""
        if self._bound is None or found.tokenised is None or place in found.tokenised:
            return False
        try:
            text = self._prompt_tokenizer.prompt_text(row.prompt, row.tools)
        except TemplateRefusal:
            return False  # the refusal is reported when the row is encoded
        return self._bound(text) + BOS_TOKENS <= self._limit

    def _rendered(self, row: Row) -> Row:
        return rendered(row, self._prompt_tokenizer, self._data.system_prompt)

    def _can_be_rendered(self, row: Row, faults: Faults) -> bool:
        if isinstance(row.prompt, str) or self._prompt_tokenizer.has_chat_template:
            return True
        faults.add(row.source, NO_TEMPLATE)
        return False

    def _note_length(self, row: Row, tokens: int, faults: Faults) -> None:
        if self._data.overlong_prompts == "refuse":
            faults.add(
                row.source,
                f"the prompt has {tokens} tokens, over training.max_prompt_length={self._limit}; "
                "shorten it, raise the limit or write data.overlong_prompts: drop",
            )

    def notes(self, *parts: FileRows) -> Iterator[str]:
        """Parts that the template ignores, each with the first row that has it."""
        first: dict[str, str] = {}
        for rows in parts:
            for place in _shown_shapes(rows):
                row = self._rendered(rows.file.read(place))
                for thing in unseen(row, self._prompt_tokenizer):
                    first.setdefault(thing, row.source)
        for thing, source in first.items():
            yield (
                f"the chat template ignores {thing}, so the model never sees it (first in {source})"
            )


def _file_of(rows: Sequence[Row]) -> str:
    """The file of the rows, for a message about many of them."""
    if isinstance(rows, FileRows):
        return rows.file.name
    return file_of(rows[0].source) if len(rows) else ""


def _shown_shapes(rows: FileRows) -> Iterable[int]:
    return rows.file.shapes.values() if len(rows) else ()


def _places(rows: FileRows, most: int | None) -> Sequence[int]:
    """Indices to measure: all, or a sample of ``most`` and the first row of each shape."""
    if most is None or len(rows) <= most:
        return range(len(rows))
    first = set(rows.file.shapes.values())
    shapes = {i for i, place in enumerate(rows.places) if place in first}
    return sorted(shapes.union(_drawn(len(rows), most)))


def _drawn(count: int, most: int) -> Iterable[int]:
    """``most`` indices, always the same; random, because the file may have a regular pattern."""
    return random.Random(0).sample(range(count), min(count, most))


def _report(source: Source, found: _Measured) -> dict[str, Any]:
    counts = {**source.left_out.counts}
    if found.too_long:
        counts[TOO_LONG] = round(found.too_long.counts[TOO_LONG] * found.scale)
    kept = found.of - counts.get(TOO_LONG, 0)
    sampled = {"estimated_from_rows": len(found.lengths)} if len(found.lengths) < kept else {}
    guessed = {"guessed_fields": source.guess.fields} if source.guess.fields else {}
    return {
        "file": source.file,
        **guessed,
        "sha256": source.sha256,
        "rows_read": source.read,
        "rows_kept": kept,
        "rows_left_out": counts,
        "left_out": {**source.left_out.places, **found.too_long.places},
        "prompt_tokens": {
            "min": min(found.lengths, default=None),
            "median": median(found.lengths) if found.lengths else None,
            "max": max(found.lengths, default=None),
            "total": sum(found.lengths),
            "histogram": histogram(found.lengths),
            **sampled,
        },
        **{
            name: {"rows": count, "lines": source.noted.places[name]}
            for name, count in source.noted.counts.items()
        },
    }
