"""Text and JSON files that others made: models, adapters, checkpoints. They may hold anything."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

MOST_BYTES = 32 * 2**20
"""More than any such file in use; its values can take thirty times as much memory."""
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def require_file(path: Path) -> None:
    """Raises OSError, or ValueError unless it is a plain file, or a link to one.

    Looks at it before it is opened: whoever opens a pipe waits for another process, and a device
    has no end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is not a file")


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file of at most ``most`` bytes; raises OSError or ValueError."""
    require_file(path)
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"it has {size} bytes, at most {most} are read")
    return path.read_text(encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value in a JSON file, whose texts are valid Unicode; raises OSError or ValueError."""
    text = read_text(path)
    value = parse_json(text)
    if _HALF_PAIR.search(text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # raises for half of a pair
    return value


def read_object(path: Path) -> dict[str, Any]:
    """`read_json` of a file that holds an object; raises OSError or ValueError."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not an object")
    return value


def parse_json(text: str | bytes) -> Any:
    """A JSON value; raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
