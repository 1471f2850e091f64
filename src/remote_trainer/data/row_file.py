"""The rows of a file by their offsets; each is read again on access."""

import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from remote_trainer.data.jsonl import (
    Faults,
    Line,
    LineFile,
    OnProgress,
    RowFault,
    open_lines,
    parse_object,
)
from remote_trainer.data.rows import RowFormat, fingerprint, shape
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.records import Row
from remote_trainer.references import accepted_answers, is_spelled_out

PLACES_KEPT = 1000
"""Lines listed in a report per kind; all are counted."""
SHAPES_KEPT = 1000
NO_ANSWER = "no reference answer"
AS_TEXT, SEVERAL = "answers_taken_as_text", "several_answers"


@dataclass
class Tally:
    """Number of lines of each kind, and ``file:line`` of the first ones."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, place: str, rows: int = 1) -> None:
        """Count a line that represents ``rows`` rows."""
        self.counts[kind] += rows
        first = self.places.setdefault(kind, [])
        if len(first) < PLACES_KEPT:
            first.append(place)

    def __bool__(self) -> bool:
        return bool(self.counts)


class RowFile:
    """The offset of each valid row of a file, in about thirty bytes per row."""

    def __init__(self, path: Path, form: RowFormat, lines: LineFile | None = None) -> None:
        self.path = path
        self.form = form
        self.fingerprints = array("q")
        """A 64-bit hash of the prompt of each row."""
        self.shapes: dict[Any, int] = {}
        """Index of the first row of each shape."""
        self._lines = lines
        self._offsets = array("Q")
        self._numbers = array("I")
        self._checksums = array("I")

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, line: Line, row: Row, system_prompt: str | None) -> None:
        """Add a row."""
        self._offsets.append(line.offset)
        self._numbers.append(line.number)
        self._checksums.append(zlib.crc32(line.raw))
        self.fingerprints.append(fingerprint(row, system_prompt))
        if (kind := shape(row)) not in self.shapes and len(self.shapes) < SHAPES_KEPT:
            self.shapes[kind] = len(self) - 1

    def source(self, place: int) -> str:
        """``file:line``."""
        return f"{self.path}:{self._numbers[place]}"

    def read(self, place: int) -> Row:
        """The row; raises UserInputError if the line changed after the file was checked."""
        assert self._lines is not None, "only an opened file has rows"
        raw = self._lines.read(self._offsets[place])
        if zlib.crc32(raw) != self._checksums[place]:
            raise UserInputError.at(
                self.source(place),
                "this line changed after the file was checked; restart, and do not edit data "
                "files during a run",
            )
        return self.form.read(parse_object(raw), self.source(place))


class FileRows(Sequence[Row]):
    """Some rows of a file, in a given order."""

    def __init__(self, file: RowFile, places: Sequence[int] | None = None) -> None:
        self.file = file
        self.places = range(len(file)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "FileRows": ...
    def __getitem__(self, index: int | slice) -> "Row | FileRows":
        if isinstance(index, slice):
            return FileRows(self.file, self.places[index])
        return self.file.read(self.places[index])

    def sources(self) -> Iterator[str]:
        """``file:line`` of each row, without reading it."""
        return (self.file.source(place) for place in self.places)

    def fingerprints(self) -> Iterator[int]:
        """The prompt hash of each row, without reading it."""
        return (self.file.fingerprints[place] for place in self.places)


@dataclass(frozen=True)
class Scan:
    """Results of reading a whole file."""

    rows: RowFile
    sha256: str
    read: int
    """Lines with a JSON object."""
    left_out: Tally
    noted: Tally
    faults: int


def scan(
    path: Path,
    form: RowFormat,
    system_prompt: str | None,
    problems: list[Problem],
    required: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> Scan:
    """Check every line of a file. Bad lines go to ``problems``; rows without an answer in each of
    the ``required`` fields are dropped and counted."""
    lines = open_lines(path, problems)
    rows = RowFile(path, form, lines)
    left_out, noted, faults = Tally(), Tally(), Faults(str(path))
    read = 0
    keys: tuple[str, ...] = ()
    for line in lines.lines(on_progress) if lines else ():
        try:
            value = parse_object(line.raw)
            read += 1
            keys = keys or tuple(sorted(value))
            row = form.read(value, f"{path}:{line.number}")
        except RowFault as fault:
            faults.add(f"{path}:{line.number}", str(fault))
            continue
        if not all(accepted_answers(row.fields.get(name)) for name in required):
            left_out.add(NO_ANSWER, row.source)
            continue
        rows.add(line, row, system_prompt)
        _note_answers(row, form.answer_fields, noted)
    problems.extend(faults.problems())
    if lines and not faults.count and not len(rows):
        problems.append(_nothing(str(path), read, required, keys))
    return Scan(rows, lines.sha256 if lines else "", read, left_out, noted, faults.count)


def _note_answers(row: Row, names: Sequence[str], noted: Tally) -> None:
    """Count answers that are not plain text."""
    answers = [each for name in names if not isinstance(each := row.fields.get(name), str)]
    if not answers:
        return
    if any(map(is_spelled_out, answers)):
        noted.add(AS_TEXT, row.source)
    if any(isinstance(each, list) and len(accepted_answers(each)) > 1 for each in answers):
        noted.add(SEVERAL, row.source)


def _nothing(file: str, read: int, required: Sequence[str], keys: Sequence[str]) -> Problem:
    """Why a file without bad lines has no rows."""
    if not read:
        return Problem(file, "the file has no rows; write one JSON object per line")
    return Problem(
        file,
        f"no row has a reference answer in {required[0]!r} (found keys: {', '.join(keys)}); set "
        "reward.answer_field, or use a reward that needs no reference (inverse_loss)",
    )
