"""A text file by its lines."""

import hashlib
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from remote_trainer.errors import UserInputError
from remote_trainer.progress import OnProgress

LINES_PER_REPORT = 10_000
BOM = b"\xef\xbb\xbf"
LONGEST_LINE = 2**26
"""Bytes; a file without line ends would be read into memory as a whole."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its end."""

    number: int
    offset: int
    """Byte offset in the file."""
    raw: bytes


class TextFile:
    """A file that is read once sequentially, and then at any offset.

    Input that cannot be read twice (a pipe) is copied into a temporary file first. Raises OSError
    if it cannot be opened, ValueError for an invalid path and for a device, which may have no end.
    """

    def __init__(self, path: Path) -> None:
        self._name = str(path)
        self.sha256 = ""
        """Of all bytes; available after `lines` has finished."""
        if stat.S_ISCHR(mode := os.stat(path).st_mode) or stat.S_ISBLK(mode):
            raise ValueError("is a device")
        self._file = _seekable(path.open("rb"))
        self.size = self._file.seek(0, 2)
        """In bytes."""
        weakref.finalize(self, self._file.close)

    def lines(self, on_progress: OnProgress | None = None) -> Iterator[Line]:
        """Every line, without a byte order mark."""
        digest = hashlib.sha256()
        self._file.seek(0)
        offset = 0
        for number, raw in enumerate(self._raw_lines(), start=1):
            digest.update(raw)
            start, offset = offset, offset + len(raw)
            if start == 0 and raw.startswith(BOM):
                start, raw = len(BOM), raw[len(BOM) :]
            yield Line(number, start, raw)
            if on_progress and number % LINES_PER_REPORT == 0:
                on_progress(offset, self.size)
        if on_progress:
            on_progress(self.size, self.size)
        self.sha256 = digest.hexdigest()

    def lines_from(self, offset: int) -> Iterator[Line]:
        """The line at this offset and the following ones, numbered from 1."""
        self._file.seek(offset)
        for number, raw in enumerate(self._raw_lines(), start=1):
            yield Line(number, offset, raw)
            offset += len(raw)

    def _raw_lines(self) -> Iterator[bytes]:
        """Raises UserInputError for a line over `LONGEST_LINE`."""
        for raw in iter(partial(self._file.readline, LONGEST_LINE + 1), b""):
            if len(raw) > LONGEST_LINE:
                message = f"has a line with more than {LONGEST_LINE} bytes; write shorter lines"
                raise UserInputError.at(self._name, message)
            yield raw


def _seekable(file: BinaryIO) -> BinaryIO:
    if file.seekable():
        return file
    with file:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - rows are read from it later
        shutil.copyfileobj(file, copy)
    return copy
