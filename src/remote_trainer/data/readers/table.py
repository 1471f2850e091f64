"""Rows of a table with typed columns, with values as in JSON."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from functools import partial
from importlib.util import find_spec
from typing import Any
from uuid import UUID

from remote_trainer.data.jsonl import RowFault
from remote_trainer.data.places import at_row
from remote_trainer.data.readers.reader import Record
from remote_trainer.errors import UserInputError
from remote_trainer.packages import install_extra
from remote_trainer.progress import OnProgress

BATCH = 1000
"""Rows that are converted at a time."""


class TableReader:
    """See `Reader`. The columns stay in memory or in a mapped file; ``sha256`` is that of the
    rows."""

    wanted = "write at least one row"

    def __init__(
        self, name: str, part: Callable[[int, int], list[dict[str, Any]]], rows: int, size: int
    ) -> None:
        """``part(start, stop)`` returns these rows; ``size`` is in bytes."""
        self.name = name
        self.size = size
        self.sha256 = ""
        self._part = part
        self._rows = rows

    def records(self, on_progress: OnProgress | None = None) -> Iterator[Record]:
        digest = hashlib.sha256()
        for start in range(0, self._rows, BATCH):
            stop = min(start + BATCH, self._rows)
            for place, row in enumerate(self._part(start, stop), start):
                digest.update(json.dumps(row, default=str).encode())
                yield Record(place + 1, place, 0, partial(plain_row, row))
            if on_progress:
                on_progress(self.size * stop // self._rows, self.size)
        self.sha256 = digest.hexdigest()

    def read(self, position: int, checksum: int) -> dict[str, Any]:
        return plain_row(self._part(position, position + 1)[0])

    def where(self, position: int, number: int) -> str:
        return at_row(self.name, number)


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row with values as in JSON. NaN becomes null, times and decimals become text. A null key
    of a struct counts as absent, because each struct of a column has the same keys.

    Raises RowFault for bytes that are not text, infinite numbers, images and the like.
    """
    return {name: _plain(value, name) for name, value in row.items()}


def _plain(value: Any, column: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _number(value, column)
    if isinstance(value, dict):
        return {key: _plain(each, column) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_plain(each, column) for each in value]
    if isinstance(value, bytes):
        return _text(value, column)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta | UUID):
        return str(value)
    raise RowFault(f"{column!r} contains a {type(value).__name__}; remove this column")


def _number(value: float, column: str) -> float | None:
    if math.isinf(value):
        raise RowFault(f"{column!r} contains {value}; write null or a finite number")
    return None if math.isnan(value) else value


def _text(value: bytes, column: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RowFault(
            f"{column!r} contains bytes that are not UTF-8 text; remove this column"
        ) from None


def require_module(name: str, module: str) -> None:
    """Raises UserInputError, at the data source ``name``, if a package of an extra is missing."""
    if find_spec(module) is None:
        raise UserInputError.at(
            name, f"needs {module}, which is in the extra 'train': {install_extra('train')}"
        )


def require_columns(name: str, columns: list[str]) -> None:
    """Raises UserInputError if two columns have the same name."""
    twice = next((each for each in columns if columns.count(each) > 1), None)
    if twice is not None:
        raise UserInputError.at(name, f"two columns have the name {twice!r}; rename one")
