"""A run ends after the update under way, with a checkpoint, in all its processes together."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from remote_trainer.processes import is_main, shared
from remote_trainer.stop_signals import StopSignals


class StopRequest(StopSignals, TrainerCallback):  # type: ignore[misc]
    """Used as a context around training; ``exit_code`` tells which signal came, if any."""

    def __init__(self, asked: Callable[[], int | None] = lambda: None) -> None:
        """``asked`` gives the exit code of a request that comes another way, or None."""
        super().__init__()
        self._asked = asked

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
