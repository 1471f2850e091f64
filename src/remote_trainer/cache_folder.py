"""The cache folder, for data that can be regenerated."""

import os
from pathlib import Path

from remote_trainer.errors import UserInputError
from remote_trainer.paths import expand


def cache_folder() -> Path:
    """``$REMOTE_TRAINER_CACHE``, or ``remote_trainer`` in the user's cache folder.

    Raises UserInputError where a variable holds no path.
    """
    if own := _folder_in("REMOTE_TRAINER_CACHE"):
        return own
    return (_folder_in("XDG_CACHE_HOME") or Path.home() / ".cache") / "remote_trainer"


def _folder_in(variable: str) -> Path | None:
    """None if it is not set or empty."""
    if not (value := os.environ.get(variable)):
        return None
    try:
        return Path(expand(value))
    except ValueError as error:
        raise UserInputError.at(variable, str(error)) from None
