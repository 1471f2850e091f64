"""Ctrl-C and SIGTERM end a run after the update under way, with a checkpoint, in all processes."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from transformers import TrainerCallback

from remote_trainer.errors import EXIT_INTERRUPTED, EXIT_TERMINATED
from remote_trainer.processes import is_main, shared


class StopRequest(TrainerCallback):  # type: ignore[misc]
    """Used as a context around training; ``exit_code`` tells which signal came, if any.

    A second Ctrl-C does not wait.
    """

    def __init__(self, asked: Callable[[], int | None] = lambda: None) -> None:
        """``asked`` gives the exit code of a request that comes another way, or None."""
        self.exit_code: int | None = None
        self._asked = asked
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only (a worker of a cluster has none).
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.exit_code is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.exit_code is None:
            self.exit_code = self._asked()
        if self.exit_code is not None:
            control.should_save = True
            control.should_training_stop = True


class Saved(TrainerCallback):  # type: ignore[misc]
    """Tells of every checkpoint, in the process that wrote it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if is_main():
            self._tell()


class SameDecisions(TrainerCallback):  # type: ignore[misc]
    """The last callback: what the main process decided holds for all.

    Only the main process has the log and the guard, and a signal reaches processes at different
    times. One that went on alone would wait for the others forever.
    """

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        _share(control)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        _share(control)


def _share(control: Any) -> None:
    control.should_training_stop, control.should_save, control.should_log = shared(
        (control.should_training_stop, control.should_save, control.should_log)
    )
