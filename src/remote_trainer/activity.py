"""What this process is doing: the phase and the update under way, for whoever looks from outside.

One process runs one command, so this is one object: functions far below the trainer, such as the
call of a user's reward function, say what they do without being handed anything.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

_NOTE = "in phase: "


class Activity:
    """The phase, since when it lasts, and how long updates took. Written by the main thread and
    read by others; times are of `time.monotonic`."""

    def __init__(self) -> None:
        self.phase, self.since = "starting", time.monotonic()
        self.update = 0
        """The update under way or done last; 0 before the first."""
        self.update_since: float | None = None
        """When the update under way began; None between updates."""
        self._seconds: list[float] = []

    def enter(self, phase: str) -> None:
        """A phase that lasts until the next one."""
        self.phase, self.since = phase, time.monotonic()

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase inside another one, which goes on behind the block. An exception gets a note of
        the innermost phase that it came from."""
        outer = self.phase
        self.enter(phase)
        try:
            yield
        except BaseException as error:
            if self.failed_in(error) is None:
                error.add_note(f"{_NOTE}{phase}")
            raise
        finally:
            self.enter(outer)

    @staticmethod
    def failed_in(error: BaseException | None) -> str | None:
        """The phase that an exception came from; None if no phase noted it."""
        notes = getattr(error, "__notes__", ())
        return next((note.removeprefix(_NOTE) for note in notes if note.startswith(_NOTE)), None)

    def begin_update(self, number: int) -> None:
        """An update begins."""
        self.update, self.update_since = number, time.monotonic()
        self.enter("update")

    def end_update(self) -> None:
        """It has ended; an exception may have ended it, too."""
        if self.update_since is not None:
            self._seconds.append(time.monotonic() - self.update_since)
            self.update_since = None

    @property
    def median_seconds(self) -> float:
        """Of the updates so far; 0 before the first has ended."""
        return median(self._seconds) if self._seconds else 0.0


ACTIVITY = Activity()
