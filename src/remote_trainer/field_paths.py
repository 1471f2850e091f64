"""Values inside a row by the name of a key or by a path such as ``answers.text.0``."""

from collections.abc import Mapping, Sequence
from typing import Any

_MOST_DIGITS = 18  # Python does not read thousands


class NoValueError(LookupError):
    """No value at a path, with the missing part as text."""

    def __init__(self, message: str, fits: bool = True) -> None:
        super().__init__(message)
        self.fits = fits
        """The row could have a value there: a key, an item or a whole list is missing. False: the
        path enters a text or a number, or names a key of a list."""


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """The value at ``path``: keys of objects and indices of lists (from 0), separated by dots.

    A key that is spelled like the whole path comes first. Raises NoValueError.
    """
    if path in fields:
        return fields[path]
    value: Any = fields
    seen = ""
    for part in path.split("."):
        value = _inside(value, part, seen)
        seen = f"{seen}.{part}" if seen else part
    return value


def find(fields: Mapping[str, Any], path: str) -> Any:
    """`value_at`, or None if there is no value."""
    try:
        return value_at(fields, path)
    except NoValueError:
        return None


def _inside(value: Any, part: str, seen: str) -> Any:
    if isinstance(value, Mapping):
        if part in value:
            return value[part]
        raise NoValueError(f"{seen!r} has no key {part!r}" if seen else f"{part!r} is missing")
    if value is None:
        raise NoValueError(f"{seen!r} is null")
    if isinstance(value, list | tuple):
        return _item(value, part, seen)
    raise NoValueError(f"{seen!r} is a {type(value).__name__}, which has no {part!r}", fits=False)


def _item(items: Sequence[Any], part: str, seen: str) -> Any:
    if not (part.isascii() and part.isdigit()):
        raise NoValueError(
            f"{seen!r} is a list; write an index such as 0, not {part!r}", fits=False
        )
    if not items:
        raise NoValueError(f"list {seen!r} is empty")
    if len(part) > _MOST_DIGITS or int(part) >= len(items):
        raise NoValueError(f"list {seen!r} has no item {part} (the last one is {len(items) - 1})")
    return items[int(part)]
