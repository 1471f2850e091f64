"""How stages tell what they do: they print nothing themselves."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OnProgress = Callable[[int, int], None]
"""Called with what is done of a count, and all of it."""


@dataclass(frozen=True)
class ProgressCallbacks:
    """Called with each stage's name, each line of metrics.jsonl and the run's updates, and the
    parts of a long count that are done and all of them."""

    stage: Callable[[str], None] = lambda text: None
    line: Callable[[dict[str, Any], int], None] = lambda line, updates: None
    progress: Callable[[int, int], None] = lambda done, total: None


SILENT = ProgressCallbacks()

SECONDS_WITHOUT_A_WORD = 2.0


def late(watch: ProgressCallbacks, what: str) -> Callable[[int, int], None]:
    """Tells of a count, and of what is counted, only if it takes longer than two seconds."""
    begun, named = time.monotonic(), False

    def tell(done: int, total: int) -> None:
        nonlocal named
        if time.monotonic() - begun <= SECONDS_WITHOUT_A_WORD:
            return
        if not named:
            named = True
            watch.stage(what)
        watch.progress(done, total)

    return tell


def in_megabytes(progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """A count of bytes, told in megabytes."""
    return lambda done, total: progress(done // 10**6, max(1, total // 10**6))
