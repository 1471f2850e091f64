"""Ctrl-C and SIGTERM stop a run after the current update (and those that share its completions),
with a checkpoint, in all its processes together."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback

from remote_trainer.processes import is_main, shared
from remote_trainer.stop_signals import StopSignals


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


class StopRequest(StopSignals, TrainerCallback):  # type: ignore[misc]
    """Context manager for training; ``exit_code`` is that of the received signal, else None."""

    def __init__(self, asked: Callable[[], int | None] = lambda: None) -> None:
        """``asked`` gives the exit code of a request that comes another way, or None."""
        super().__init__()
        self._asked = asked

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.exit_code is None:
            self.exit_code = self._asked()
        if self.exit_code is not None and _rollout_is_used_up(args, state.global_step):
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


def _rollout_is_used_up(args: Any, updates: int) -> bool:
    """Whether the next update samples anew. Completions are not in a checkpoint, so a run that
    went on between two updates that share them would not be the same run."""
    micro_steps = updates * args.gradient_accumulation_steps
    return bool(micro_steps % (args.steps_per_generation * args.num_iterations) == 0)
