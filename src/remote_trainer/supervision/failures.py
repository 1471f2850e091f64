"""Failures of the machine, told as errors of this program: what, where, and what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote_trainer.activity import ACTIVITY
from remote_trainer.errors import GOES_ON, OutOfMemoryError, RemoteTrainerError, StorageError
from remote_trainer.run_dir import RunDir
from remote_trainer.supervision.disk import FULL, error_number, free_bytes

_DISK_FAILED = (
    *(errno.EROFS, errno.EIO, errno.EFBIG),
    *(errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO),  # no longer there
)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
"""Explained for files of the run only: elsewhere, other things are forbidden than writing."""


@contextmanager
def failures_explained(folder: RunDir) -> Iterator[None]:
    """A full, read-only or broken disk and exhausted memory become errors with a message.

    Raises StorageError or OutOfMemoryError in their place; other errors pass.
    """
    try:
        yield
    except RemoteTrainerError:
        raise
    except Exception as error:
        explained = _explain(error, folder)
        if explained is None:
            raise
        raise explained from error


def _explain(error: Exception, folder: RunDir) -> RemoteTrainerError | None:
    # It imports torch, which a command loads only if it needs a model.
    from remote_trainer.fallback import is_out_of_memory

    name, number = getattr(error, "filename", None), error_number(error)
    named = Path(name) if isinstance(name, str | os.PathLike) else None  # or a number, or bytes
    path = named or folder.root
    inside = named is not None and path.absolute().is_relative_to(folder.root.absolute())
    if number in FULL:
        return StorageError.full(str(path), free_bytes(path))
    if number in _DISK_FAILED or (inside and number in _FORBIDDEN):
        return StorageError(
            f"{path}: cannot be written any more ({os.strerror(number)}). "
            + GOES_ON.format("Make it writable")
        )
    if is_out_of_memory(error):
        return OutOfMemoryError.with_advice(ACTIVITY.failed_in(error) or ACTIVITY.phase, str(error))
    return None
