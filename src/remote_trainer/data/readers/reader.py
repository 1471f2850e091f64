"""What every reader of a data format offers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from remote_trainer.progress import OnProgress


class ChangedRecordError(Exception):
    """A record is no longer what it was when its file was read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row as it stands in its file."""

    number: int
    """Its line or row, from 1."""
    position: int
    """By which `Reader.read` finds it again."""
    checksum: int
    """32 bits of its content; 0 if it cannot change while it is in use."""
    value: Callable[[], dict[str, Any]]
    """Its keys and values as in JSON; raises RowFault."""


class Reader(Protocol):
    """A data source: read once from front to back, and then record by record in any order."""

    name: str
    """As the user wrote it."""
    wanted: str
    """What to write if there are no rows."""

    @property
    def size(self) -> int:
        """Bytes, for progress."""
        ...

    @property
    def sha256(self) -> str:
        """Identity of the content; available after `records` has finished."""
        ...

    def records(self, on_progress: OnProgress | None = None) -> Iterator[Record]:
        """Every record that is not blank; ``on_progress`` gets the bytes read and `size`."""
        ...

    def read(self, position: int, checksum: int) -> dict[str, Any]:
        """The value of one record; raises ChangedRecordError."""
        ...

    def where(self, position: int, number: int) -> str:
        """The place of a record, for messages."""
        ...
