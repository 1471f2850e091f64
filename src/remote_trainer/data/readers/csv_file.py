"""CSV (RFC 4180): a header line with the column names, commas, double quotes, UTF-8."""

import csv
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from remote_trainer.data.jsonl import RowFault, as_utf8, shown
from remote_trainer.data.places import at_line
from remote_trainer.data.readers.reader import ChangedRecordError, Record
from remote_trainer.data.readers.text_file import LONGEST_LINE, Line, TextFile
from remote_trainer.errors import UserInputError
from remote_trainer.progress import OnProgress

OTHER_SEPARATORS = (";", "\t", "|")


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of one record: quoted cells may contain line breaks."""

    number: int
    offset: int
    raw: bytes


class CsvReader:
    """See `Reader`. A cell is text, and an empty cell is null. The number of a record is that of
    its first line."""

    wanted = "write a header line with the column names, then one row per line"

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError if the file cannot be opened, UserInputError if its header
        is wrong."""
        csv.field_size_limit(LONGEST_LINE)  # characters; the default of Python's module is 131,072
        self.name = str(path)
        self._file = TextFile(path)
        header = next(_records(self._file.lines()), None)
        self._columns = self._columns_of(header) if header else ()

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def sha256(self) -> str:
        return self._file.sha256

    def records(self, on_progress: OnProgress | None = None) -> Iterator[Record]:
        found = _records(self._file.lines(on_progress))
        next(found, None)  # the header
        for each in found:
            value = partial(self._value, each.raw)
            yield Record(each.number, each.offset, zlib.crc32(each.raw), value)

    def read(self, position: int, checksum: int) -> dict[str, Any]:
        found = next(_records(self._file.lines_from(position)), None)
        if found is None or zlib.crc32(found.raw) != checksum:
            raise ChangedRecordError
        return self._value(found.raw)

    def where(self, position: int, number: int) -> str:
        return at_line(self.name, number)

    def _value(self, raw: bytes) -> dict[str, Any]:
        cells = _cells(raw)
        if len(cells) != len(self._columns):
            raise RowFault(
                f"{_count(len(cells), 'cell')}, but the header has "
                f"{_count(len(self._columns), 'column')}; put a cell that contains a comma in "
                "double quotes"
            )
        pairs = zip(self._columns, cells, strict=True)
        return {name: cell or None for name, cell in pairs if name}

    def _columns_of(self, header: _Lines) -> Sequence[str]:
        """The names; an empty name marks a column that is left out."""
        try:
            names = [name.strip() for name in _cells(header.raw)]
            _check(names)
        except RowFault as fault:
            raise UserInputError.at(at_line(self.name, header.number), str(fault)) from None
        return names


def _records(lines: Iterable[Line]) -> Iterator[_Lines]:
    """The records that are not blank, whether they are valid or not."""
    held: list[Line] = []

    def texts() -> Iterator[str]:
        for line in lines:
            held.append(line)
            yield line.raw.decode("utf-8", "replace")

    rows = csv.reader(texts(), strict=True)
    while True:
        try:
            ended = next(rows, None) is None
        except csv.Error:  # `_cells` finds it again and says so
            ended = False
        raw = b"".join(line.raw for line in held)
        if raw.strip():
            yield _Lines(held[0].number, held[0].offset, raw)
        held.clear()
        if ended:
            return


def _cells(raw: bytes) -> list[str]:
    """The cells of one record; raises RowFault."""
    text = as_utf8(raw)
    try:
        return next(csv.reader(io.StringIO(text, newline="\n"), strict=True))
    except csv.Error as error:
        raise RowFault(
            f"not valid CSV ({error}); put a cell that contains a comma, a quote or a line break "
            "in double quotes, and write a quote in it twice"
        ) from None


def _check(names: Sequence[str]) -> None:
    if not any(names):
        raise RowFault("the header has no column names; write them in the first line")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise RowFault(f"two columns have the name {twice!r}; rename one")
    if len(names) == 1 and any(each in names[0] for each in OTHER_SEPARATORS):
        raise RowFault(f"the only column is {shown(names[0])}; separate cells with commas")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
