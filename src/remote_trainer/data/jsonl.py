"""One JSON object a line; every bad line is reported with its number."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from remote_trainer.errors import Problem

SHOWN_PROBLEMS = 20


def read_objects(path: Path, problems: list[Problem]) -> list[tuple[int, dict[str, Any]]]:
    """(line number, object) of every good line; bad lines are added to ``problems``."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        problems.append(Problem(str(path), f"{reason}; write the path of a JSONL file"))
        return []
    found = []
    bad: list[Problem] = []
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append((number, _parse(line)))
        except ValueError as error:
            bad.append(Problem(f"{path}:{number}", str(error)))
    if not found and not bad:
        bad.append(Problem(str(path), "the file holds no rows; write one JSON object a line"))
    problems.extend(shorten(bad, str(path)))
    return found


def shorten(problems: list[Problem], where: str) -> Iterator[Problem]:
    """The first problems of a file, and how many more there are."""
    yield from problems[:SHOWN_PROBLEMS]
    if len(problems) > SHOWN_PROBLEMS:
        yield Problem(where, f"and {len(problems) - SHOWN_PROBLEMS} more lines with problems")


def _parse(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not valid JSON at column {error.colno} ({error.msg}); write one object a line"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(
            f'found a {type(value).__name__}; write an object such as {{"prompt": "..."}}'
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"{twice!r} stands twice in this row; keep one")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value; write null or a number")
