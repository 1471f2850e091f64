"""How stages tell what they do: they print nothing themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Watcher:
    """Called with each stage's name, each line of metrics.jsonl and the run's updates, and the
    parts of a long count that are done and all of them."""

    stage: Callable[[str], None] = lambda text: None
    line: Callable[[dict[str, Any], int], None] = lambda line, updates: None
    progress: Callable[[int, int], None] = lambda done, total: None


SILENT = Watcher()
