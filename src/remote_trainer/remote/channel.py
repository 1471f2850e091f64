"""What workers and driver tell each other. Needs no Ray: the driver makes an actor of `Channel`."""

import logging
from collections.abc import Callable
from typing import Any

from remote_trainer.errors import (
    EXIT_USER_INPUT,
    Problem,
    RemoteTrainerError,
    UserInputError,
)
from remote_trainer.progress import ProgressCallbacks

Message = tuple[str, tuple[Any, ...]]
NAMESPACE = "remote_trainer"


class WorkerError(RemoteTrainerError):
    """What ended the run in the main worker, with the exit code of the original error."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Channel:
    """Messages of the main worker to the driver, and the driver's wish to stop."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._attempts = 0
        self._opened = False
        self._stop_code: int | None = None

    def begin(self) -> tuple[int, bool]:
        """Called by the main worker: number of this attempt, from 1, and whether an earlier one
        opened the run folder."""
        self._attempts += 1
        return self._attempts, self._opened

    def tell(self, kind: str, *values: Any) -> None:
        """Add a message for the driver."""
        self._opened = self._opened or kind == "saved"
        self._messages.append((kind, values))

    def take(self) -> list[Message]:
        """The messages since the last call."""
        taken, self._messages = self._messages, []
        return taken

    def stop(self, exit_code: int) -> None:
        """Ask the workers to stop after the update under way."""
        self._stop_code = exit_code

    def stop_code(self) -> int | None:
        """Asked by the main worker after each update, in which it tells that it trains."""
        self._messages.append(("trains", ()))
        return self._stop_code


def watch_of(tell: Callable[..., object], stop_code: Callable[[], int | None]) -> ProgressCallbacks:
    """Progress of the main worker, told to the driver."""
    return ProgressCallbacks(
        stage=lambda text: _drop(tell("stage", text)),
        line=lambda line, updates: _drop(tell("line", line, updates)),
        progress=lambda done, total: _drop(tell("progress", done, total)),
        saved=lambda: _drop(tell("saved")),
        stop_code=stop_code,
    )


def _drop(_: object) -> None:
    """Nobody waits until the driver has read a message."""


class WarningsToDriver(logging.Handler):
    """Sends warnings of this program to the driver, which shows them once."""

    def __init__(self, tell: Callable[..., object]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell("warning", record.levelno, record.getMessage())


def as_message(error: RemoteTrainerError) -> dict[str, Any]:
    """An error as plain values."""
    problems = [(p.where, p.message) for p in getattr(error, "problems", ())]
    return {"exit_code": error.exit_code, "text": str(error), "problems": problems}


def as_error(message: dict[str, Any]) -> RemoteTrainerError:
    """Inverse of `as_message`; only the exit code tells other classes apart."""
    if message["exit_code"] == EXIT_USER_INPUT:
        return UserInputError([Problem(*each) for each in message["problems"]])
    return WorkerError(message["text"], message["exit_code"])
