"""A lock on a folder: only one process writes it, and others can see which one."""

import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from remote_trainer.errors import UserInputError

logger = logging.getLogger(__name__)

LOCK = ".lock"
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_ATTEMPTS, _PAUSE = 5, 0.05  # another process may be testing the lock right now
_COMMAND_LENGTH = 200
_open: set[int] = set()
"""Descriptors of locks that this process holds."""


def take_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Try to take the lock without waiting; it is held until the descriptor is closed or this
    process ends. Raises OSError if the file system does not support locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


class FolderLock:
    """Exclusive write access to a folder inside the block; creates the folder if necessary.

    The lock file is removed afterwards, and so is a created folder that stayed empty. The lock
    file of a killed process does no harm: the system has released the lock. If the file system
    does not support locks, a warning is logged and the block runs.
    """

    def __init__(self, folder: Path, where: str = "") -> None:
        self.folder = folder
        """The folder; must be updated when it is moved."""
        self._where = where or str(folder)
        self._descriptor = -1
        self._made = False

    def __enter__(self) -> Self:
        """Raises UserInputError that names the holder if another process holds the lock."""
        try:
            self._made = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._take()
            _write_holder(self._descriptor)
        except OSError as error:
            raise UserInputError.at(
                self._where,
                f"{self.folder} cannot be written ({error.strerror}); write another folder",
            ) from None
        return self

    def _take(self) -> int:
        file = self.folder / LOCK
        for _ in range(_ATTEMPTS):
            # A link is not followed: the file that it leads to would be emptied.
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                free = take_lock(descriptor)
            except OSError as error:
                logger.warning(
                    "%s: the disk does not support locks (%s), so another process could write "
                    "there at the same time",
                    self.folder,
                    error.strerror,
                )
                free = True
            if free and _is_still(descriptor, file):
                _open.add(descriptor)
                return descriptor
            os.close(descriptor)
            time.sleep(_PAUSE)
        raise _refusal(self.folder, self._where)

    def __exit__(self, *_: object) -> None:
        file = self.folder / LOCK
        with suppress(OSError):  # a disk that became read-only keeps it, which does no harm
            if _is_still(self._descriptor, file):  # while it is held, so nobody else has it
                file.unlink()
        _open.discard(self._descriptor)
        os.close(self._descriptor)
        if self._made and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def refuse_if_locked(folder: Path, where: str = "") -> None:
    """Raises UserInputError that names the process that writes ``folder`` now; leaves no trace."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:  # no lock, or one that cannot be looked at: whoever writes will find out
        return
    try:
        free = take_lock(descriptor, fcntl.LOCK_SH)
    except OSError:  # the disk knows no locks; whoever writes will say so
        free = True
    finally:
        os.close(descriptor)
    if not free:
        raise _refusal(folder, where or str(folder))


def is_written(folder: Path) -> bool:
    """Whether a process writes ``folder`` now, according to what it wrote about itself.

    Only reads; unlike `refuse_if_locked` it does not touch the lock. A process of another machine
    counts as alive.
    """
    holder = _read_holder(folder)
    if holder is None:
        return False
    return bool(holder["host"] != socket.gethostname()) or _is_alive(holder["pid"])


def _is_alive(pid: Any) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)  # sends no signal
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _is_still(descriptor: int, file: Path) -> bool:
    """Whether the open file has its name yet: the holder before removes it."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": command[:_COMMAND_LENGTH],
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(holder) + "\n").encode(), 0)


def _read_holder(folder: Path) -> dict[str, Any] | None:
    """What `_write_holder` wrote; None without a lock, or if its holder has not written yet."""
    try:
        found: Any = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(found, dict) and {"pid", "host", "command", "since"} <= set(found)
    return found if complete else None


def _refusal(folder: Path, where: str) -> UserInputError:
    found = _read_holder(folder)
    who = "another process"
    if found is not None:
        who = (
            f"process {found['pid']} on {found['host']} since {found['since']} ({found['command']})"
        )
    return UserInputError.at(
        where,
        f"{folder} is being written by {who}; wait until it is done, or write to another folder",
    )


def _forget_in_child() -> None:
    """A forked child does not keep the lock of a parent that is killed."""
    for descriptor in _open:
        os.close(descriptor)
    _open.clear()


os.register_at_fork(after_in_child=_forget_in_child)
