"""Ctrl-C and SIGTERM stop a run after the current update, with a checkpoint."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from transformers import TrainerCallback

from remote_trainer.errors import EXIT_INTERRUPTED, EXIT_TERMINATED


class StopRequest(TrainerCallback):  # type: ignore[misc]
    """Context manager for training; ``exit_code`` is that of the received signal, else None.

    A second Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
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
        if self.exit_code is not None:
            control.should_save = True
            control.should_training_stop = True
