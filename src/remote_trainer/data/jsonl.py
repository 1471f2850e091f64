"""The JSON of one line, and what is wrong with the rows of a file."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from remote_trainer.errors import Problem

SHOWN_PROBLEMS = 20
MOST_LEVELS = 100
"""Deeper nesting is an error in the file, and would exceed the recursion limit when written."""


class RowFault(ValueError):
    """What is wrong with one row, as text to follow its place."""


class Faults:
    """Problems of one file: the first ones, and their total number."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._shown: list[Problem] = []
        self.count = 0

    def add(self, where: str, message: str) -> None:
        """Record a problem of a row, with its place."""
        self.count += 1
        if len(self._shown) < SHOWN_PROBLEMS:
            self._shown.append(Problem(where, message))

    def problems(self) -> Iterator[Problem]:
        """The problems to report."""
        yield from self._shown
        if self.count > len(self._shown):
            more = self.count - len(self._shown)
            yield Problem(self._file, f"and {more} more lines with problems")


def parse_object(line: bytes) -> dict[str, Any]:
    """The object of one line; raises RowFault."""
    value = parse_value(line)
    if not isinstance(value, dict):
        raise RowFault(
            f'found a {type(value).__name__}; write an object such as {{"prompt": "..."}}'
        )
    return value


def parse_value(line: bytes) -> Any:
    """A JSON value; raises RowFault."""
    text = as_utf8(line)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise RowFault(
            f"not valid JSON at column {error.colno} ({error.msg}); write one object per line"
        ) from None
    except RecursionError:
        raise RowFault(_TOO_DEEP) from None
    except RowFault:
        raise
    except ValueError:  # Python's limit on the digits of an integer
        raise RowFault("contains a number with thousands of digits; write it as text") from None
    if line.count(b"[") + line.count(b"{") > MOST_LEVELS or _HALF_PAIRS.search(line):
        _require_plain(value)
    return value


def as_utf8(raw: bytes) -> str:
    """The text of a row; raises RowFault."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowFault(f"not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None


def shown(value: Any, length: int = 120) -> str:
    """A value as shown in a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _require_plain(value: Any) -> None:
    """Raises RowFault for invalid Unicode and deep nesting, with the key that contains it."""
    inside: list[tuple[Any, str, int]] = [(value, "the line", 0)]
    while inside:
        item, name, level = inside.pop()
        if level > MOST_LEVELS:
            raise RowFault(_TOO_DEEP)
        if isinstance(item, str):
            _require_unicode(item, name)
        elif isinstance(item, list):
            inside += ((each, name, level + 1) for each in item)
        elif isinstance(item, dict):
            for key, each in item.items():
                own = repr(key) if level == 0 else name
                inside += ((key, own, level + 1), (each, own, level + 1))


def _require_unicode(text: str, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise RowFault(
            f"{name} contains {half}, half of a surrogate pair; write both halves or the character "
            "itself"
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RowFault(f"duplicate key {twice!r} in this row; keep one")
    return value


def _no_constant(name: str) -> Any:
    raise RowFault(f"{name} is not valid JSON; write null or a number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise RowFault(f"the number {shown(text)[1:-1]} is too large; write it as text")
    return number


_TOO_DEEP = f"is nested more than {MOST_LEVELS} levels deep; write plain values"
_HALF_PAIRS = re.compile(rb"\\u[dD][89a-fA-F]")
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)
