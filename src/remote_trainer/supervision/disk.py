"""Space on a disk: asked for before something is written, and missed by its number of bytes."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remote_trainer.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT)
_NUMBER = re.compile(r"\(os error (\d+)\)")
_COPIES, _BYTES = 5, 4
"""Of every trained number: itself, two of the optimizer's and two kept adapters, in float32."""
_OTHERWISE = 2**20
"""Random states, numbers of the trainer and of the guard."""


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of ``path``, which need not exist."""
    whole = path.absolute()
    there = next(parent for parent in (whole, *whole.parents) if os.path.exists(parent))
    return shutil.disk_usage(there).free


def checkpoint_bytes(trained_numbers: int) -> int:
    """The most that a checkpoint takes, for so many trained numbers."""
    return _COPIES * _BYTES * trained_numbers + _OTHERWISE


@contextmanager
def room_for(folder: Path, needed: int) -> Iterator[None]:
    """The block writes up to ``needed`` bytes into ``folder``, which is removed if it fails.

    Raises StorageError if they are not free, before or in the block.
    """
    free = free_bytes(folder)
    if free < needed:
        raise StorageError.full(str(folder), free, needed)
    try:
        yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if error_number(error) in FULL:
            raise StorageError.full(str(folder), free_bytes(folder), needed) from error
        raise


def error_number(error: BaseException) -> int | None:
    """The system's number of an error; safetensors and tokenizers give it in their text only."""
    if isinstance(error, OSError):
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None
