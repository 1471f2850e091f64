"""Printing to the two streams of the terminal, as text and as JSON."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from remote_trainer.errors import RemoteTrainerError, UserInputError


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
    """``text`` with control characters written as escapes: names and values in files that others
    made must not control the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


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
