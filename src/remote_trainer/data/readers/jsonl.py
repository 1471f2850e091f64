"""JSON Lines: one object per line."""

import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from remote_trainer.data.jsonl import parse_object
from remote_trainer.data.places import at_line
from remote_trainer.data.readers.reader import ChangedRecordError, Record
from remote_trainer.data.readers.text_file import TextFile
from remote_trainer.progress import OnProgress


class JsonlReader:
    """See `Reader`. Of a record, only its offset and its checksum need to stay in memory."""

    wanted = "write one JSON object per line"

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError if the file cannot be opened."""
        self.name = str(path)
        self._file = TextFile(path)

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def sha256(self) -> str:
        return self._file.sha256

    def records(self, on_progress: OnProgress | None = None) -> Iterator[Record]:
        for line in self._file.lines(on_progress):
            if line.raw.strip():
                value = partial(parse_object, line.raw)
                yield Record(line.number, line.offset, zlib.crc32(line.raw), value)

    def read(self, position: int, checksum: int) -> dict[str, Any]:
        raw = next((line.raw for line in self._file.lines_from(position)), b"")
        if zlib.crc32(raw) != checksum:
            raise ChangedRecordError
        return parse_object(raw)

    def where(self, position: int, number: int) -> str:
        return at_line(self.name, number)
