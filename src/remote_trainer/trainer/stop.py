"""Ctrl-C and SIGTERM stop a run after the current update (and those that share its completions),
with a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from transformers import TrainerCallback

from remote_trainer.errors import EXIT_INTERRUPTED, EXIT_TERMINATED


@contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM that come inside the block have their effect behind it, so that a second
    Ctrl-C does not cut a save short."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


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
        if self.exit_code is not None and _rollout_is_used_up(args, state.global_step):
            control.should_save = True
            control.should_training_stop = True


def _rollout_is_used_up(args: Any, updates: int) -> bool:
    """Whether the next update samples anew. Completions are not in a checkpoint, so a run that
    went on between two updates that share them would not be the same run."""
    micro_steps = updates * args.gradient_accumulation_steps
    return bool(micro_steps % (args.steps_per_generation * args.num_iterations) == 0)
