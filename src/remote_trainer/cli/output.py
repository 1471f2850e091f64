"""Printing to the two streams of the terminal, as text and as JSON."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from remote_trainer.errors import RemoteTrainerError, UserInputError

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""All but tab and line end; also what reverses text, and half characters."""


def say(text: str) -> None:
    """Print a result to standard output."""
    typer.echo(text)


def say_json(value: Any) -> None:
    """Print a JSON value on one line of standard output."""
    say(json.dumps(value, ensure_ascii=False))


def say_event(event: str, **facts: Any) -> None:
    """Print one line of `train --json`."""
    say_json({"event": event, **facts})


def complain(text: str) -> None:
    """Print a problem to standard error."""
    typer.echo(harmless(text), err=True)


def harmless(text: str) -> str:
    """``text`` with control characters written as escapes: what models and files of others say must
    not control the terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def problems_of(error: RemoteTrainerError) -> list[dict[str, str]]:
    """The problems of an error, for JSON; none if it is not the user's."""
    found = error.problems if isinstance(error, UserInputError) else ()
    return [{"where": problem.where, "message": problem.message} for problem in found]


@contextmanager
def errors_as_events(active: bool) -> Iterator[None]:
    """Also print an error of this program as a line of `train --json`, if ``active``."""
    try:
        yield
    except RemoteTrainerError as error:
        if active:
            facts = {"exit_code": error.exit_code, "text": str(error)}
            say_event("error", **facts, problems=problems_of(error))
        raise
