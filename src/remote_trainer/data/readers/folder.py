"""A folder of shards: files of one kind, read one after the other."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from remote_trainer.data.readers.reader import Reader, Record
from remote_trainer.errors import UserInputError
from remote_trainer.progress import OnProgress


def shards_of(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files in ``folder`` with one of these suffixes, sorted by name; hidden ones and those
    that begin with ``_`` are left out, as Spark and Arrow do.

    Raises UserInputError if there are none, or several kinds.
    """
    files = sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes and file.is_file() and file.name[0] not in "._"
    )
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) > 1:
        raise UserInputError.at(
            str(folder), f"the folder holds {' and '.join(kinds)} files; keep one kind"
        )
    if not files:
        wanted = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise UserInputError.at(str(folder), f"the folder holds no {wanted} file; add one")
    return files


class FolderReader:
    """See `Reader`."""

    def __init__(self, folder: Path, shards: Sequence[Reader]) -> None:
        self.name = str(folder)
        self.wanted = f"{shards[0].wanted} in its files"
        self._shards = shards

    @property
    def size(self) -> int:
        return sum(shard.size for shard in self._shards)

    @property
    def sha256(self) -> str:
        return hashlib.sha256("".join(shard.sha256 for shard in self._shards).encode()).hexdigest()

    def records(self, on_progress: OnProgress | None = None) -> Iterator[Record]:
        """A position holds the number of the shard and the position in it."""
        before, size = 0, self.size

        def report(done: int, _: int) -> None:
            if on_progress:
                on_progress(before + done, size)

        for place, shard in enumerate(self._shards):
            for each in shard.records(report):
                position = each.position * len(self._shards) + place
                yield Record(each.number, position, each.checksum, each.value)
            before += shard.size

    def read(self, position: int, checksum: int) -> dict[str, Any]:
        inner, place = divmod(position, len(self._shards))
        return self._shards[place].read(inner, checksum)

    def where(self, position: int, number: int) -> str:
        inner, place = divmod(position, len(self._shards))
        return self._shards[place].where(inner, number)
