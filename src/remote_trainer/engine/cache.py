"""Where things that can be made again are kept between runs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$REMOTE_TRAINER_CACHE``, or ``remote_trainer`` in the user's cache folder."""
    if own := os.environ.get("REMOTE_TRAINER_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "remote_trainer"
