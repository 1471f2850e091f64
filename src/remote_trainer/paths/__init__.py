"""Paths of the user's: what may be written, whether it can be written to, and who writes there."""

from remote_trainer.paths.expand import expand
from remote_trainer.paths.lock import FolderLock, is_written, refuse_if_locked, take_lock
from remote_trainer.paths.writable import why_no_file, why_no_folder

__all__ = [
    "FolderLock",
    "expand",
    "is_written",
    "refuse_if_locked",
    "take_lock",
    "why_no_file",
    "why_no_folder",
]
