"""Where a row stands, as text for messages and reports."""

import re

_PLACE = re.compile(r"(?::\d+| row \d+)$")


def at_line(file: str, number: int) -> str:
    """A line of a text file, from 1."""
    return f"{file}:{number}"


def at_row(file: str, number: int) -> str:
    """A row of a file without lines, from 1."""
    return f"{file} row {number}"


def file_of(place: str) -> str:
    """The file of `at_line` and `at_row`."""
    return _PLACE.sub("", place)
