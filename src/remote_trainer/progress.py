"""Callbacks through which stages report progress; they print nothing themselves."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OnProgress = Callable[[int, int], None]
"""Called with the number of items done and the total."""


@dataclass(frozen=True)
class ProgressCallbacks:
    """Called with the name of each stage; with each line of metrics.jsonl and the total updates;
    with done and total of a long count; and after the run folder was added to. ``stop_code`` is
    asked after each update: the exit code of a run that is to end there, or None."""

    stage: Callable[[str], None] = lambda text: None
    line: Callable[[dict[str, Any], int], None] = lambda line, updates: None
    progress: Callable[[int, int], None] = lambda done, total: None
    saved: Callable[[], None] = lambda: None
    stop_code: Callable[[], int | None] = lambda: None


SILENT = ProgressCallbacks()

QUIET_SECONDS = 2.0


def late(watch: ProgressCallbacks, what: str) -> Callable[[int, int], None]:
    """A progress callback that reports ``what`` and its count only after two seconds."""
    begun, named = time.monotonic(), False

    def report(done: int, total: int) -> None:
        nonlocal named
        if time.monotonic() - begun <= QUIET_SECONDS:
            return
        if not named:
            named = True
            watch.stage(what)
        watch.progress(done, total)

    return report


def in_megabytes(progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Converts a count of bytes to megabytes."""
    return lambda done, total: progress(done // 10**6, max(1, total // 10**6))
