"""The rows of a data source by their positions; each is read again on access."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, overload

from remote_trainer.data.jsonl import Faults, RowFault
from remote_trainer.data.readers.reader import ChangedRecordError, Reader, Record
from remote_trainer.data.rows import RowFormat, fingerprint, shape
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.field_paths import NoValueError, find, value_at
from remote_trainer.progress import OnProgress
from remote_trainer.records import Row
from remote_trainer.references import accepted_answers, is_spelled_out

PLACES_KEPT = 1000
"""Rows listed in a report per kind; all are counted."""
SHAPES_KEPT = 1000
NO_ANSWER = "no reference answer"
AS_TEXT, SEVERAL = "answers_taken_as_text", "several_answers"


@dataclass
class Tally:
    """Number of rows of each kind, and the places of the first ones."""

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, place: str, rows: int = 1) -> None:
        """Count a place that represents ``rows`` rows."""
        self.counts[kind] += rows
        first = self.places.setdefault(kind, [])
        if len(first) < PLACES_KEPT:
            first.append(place)

    def __bool__(self) -> bool:
        return bool(self.counts)


class RowFile:
    """The position of each valid row of a data source, in about thirty bytes per row."""

    def __init__(self, name: str, form: RowFormat, reader: Reader | None = None) -> None:
        self.name = name
        self.form = form
        self.fingerprints = array("q")
        """A 64-bit hash of the prompt of each row."""
        self.shapes: dict[Any, int] = {}
        """Index of the first row of each shape."""
        self._reader = reader
        self._positions = array("Q")
        self._numbers = array("I")
        self._checksums = array("I")

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, record: Record, row: Row, system_prompt: str | None) -> None:
        """Add a row."""
        self._positions.append(record.position)
        self._numbers.append(record.number)
        self._checksums.append(record.checksum)
        self.fingerprints.append(fingerprint(row, system_prompt))
        if (kind := shape(row)) not in self.shapes and len(self.shapes) < SHAPES_KEPT:
            self.shapes[kind] = len(self) - 1

    def source(self, place: int) -> str:
        """``file:line``, or ``file row number``."""
        assert self._reader is not None, "only an opened file has rows"
        return self._reader.where(self._positions[place], self._numbers[place])

    def read(self, place: int) -> Row:
        """The row; raises UserInputError if it changed after the file was checked."""
        assert self._reader is not None, "only an opened file has rows"
        try:
            value = self._reader.read(self._positions[place], self._checksums[place])
        except ChangedRecordError:
            raise UserInputError.at(
                self.source(place),
                "this line changed after the file was checked; restart, and do not edit data "
                "files during a run",
            ) from None
        return self.form.read(value, self.source(place))


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
        """The place of each row, without reading it."""
        return (self.file.source(place) for place in self.places)

    def fingerprints(self) -> Iterator[int]:
        """The prompt hash of each row, without reading it."""
        return (self.file.fingerprints[place] for place in self.places)


@dataclass(frozen=True)
class Scan:
    """Results of reading a whole data source."""

    rows: RowFile
    sha256: str
    read: int
    """Rows that could be read, valid or not."""
    left_out: Tally
    noted: Tally
    faults: int

    @classmethod
    def unopened(cls, name: str, form: RowFormat) -> Self:
        """Of a file that could not be opened."""
        return cls(RowFile(name, form), "", 0, Tally(), Tally(), 0)


def scan(
    reader: Reader,
    form: RowFormat,
    system_prompt: str | None,
    problems: list[Problem],
    required: Sequence[str] = (),
    on_progress: OnProgress | None = None,
) -> Scan:
    """Check every row of a data source. Bad rows go to ``problems``; rows without an answer in each
    of the ``required`` fields are dropped and counted."""
    rows = RowFile(reader.name, form, reader)
    left_out, noted, faults = Tally(), Tally(), Faults(reader.name)
    read = 0
    keys: tuple[str, ...] = ()
    for record in reader.records(on_progress):
        where = reader.where(record.position, record.number)
        try:
            value = record.value()
            read += 1
            keys = keys or tuple(sorted(value))
            row = form.read(value, where)
        except RowFault as fault:
            faults.add(where, str(fault))
            continue
        if lacking := next((why for name in required if (why := _lacks(row, name))), None):
            left_out.add(lacking, where)
            continue
        rows.add(record, row, system_prompt)
        _note_answers(row, form.answer_fields, noted)
    problems.extend(faults.problems())
    if not faults.count and not len(rows):
        problems.append(
            _no_answers(reader.name, form, required, keys, left_out)
            if read
            else Problem(reader.name, f"the file has no rows; {reader.wanted}")
        )
    return Scan(rows, reader.sha256, read, left_out, noted, faults.count)


def _lacks(row: Row, name: str) -> str | None:
    """Why a row is dropped: it has no answer under a name, or at a path."""
    if accepted_answers(find(row.fields, name)):
        return None
    try:
        value_at(row.fields, name)
    except NoValueError as missing:
        return f"{NO_ANSWER} ({name}: {missing})" if "." in name else NO_ANSWER
    return NO_ANSWER


def _note_answers(row: Row, names: Sequence[str], noted: Tally) -> None:
    """Count answers that are not plain text."""
    answers = [each for name in names if not isinstance(each := find(row.fields, name), str)]
    if not answers:
        return
    if any(map(is_spelled_out, answers)):
        noted.add(AS_TEXT, row.source)
    if any(isinstance(each, list) and len(accepted_answers(each)) > 1 for each in answers):
        noted.add(SEVERAL, row.source)


def _no_answers(
    file: str, form: RowFormat, required: Sequence[str], keys: Sequence[str], left_out: Tally
) -> Problem:
    """Why a file without bad rows has none to train on; the first row stands for the others."""
    fix = f"{form.answer_advice}, or use a reward that needs no reference (inverse_loss)"
    kind, places = next(iter(left_out.places.items()), (NO_ANSWER, [file]))
    if kind != NO_ANSWER:
        missing = kind.removeprefix(f"{NO_ANSWER} (").removesuffix(")")
        return Problem(places[0], f"{missing}; no other row has a reference answer; {fix}")
    return Problem(
        file,
        f"no row has a reference answer in {required[0]!r} (found keys: {', '.join(keys)}); {fix}",
    )
