"""Ctrl-C and SIGTERM as a request that a run answers when it is safe to stop."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from remote_trainer.errors import EXIT_INTERRUPTED, EXIT_TERMINATED


class StopSignals:
    """Inside the block, ``exit_code`` tells which signal came, if any.

    A second Ctrl-C does not wait.
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
