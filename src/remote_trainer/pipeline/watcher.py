"""How stages tell what they do: they print nothing themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Watcher:
    """Called with the name of each stage, and with each line of metrics.jsonl."""

    stage: Callable[[str], None] = lambda text: None
    line: Callable[[dict[str, Any]], None] = lambda line: None


SILENT = Watcher()
