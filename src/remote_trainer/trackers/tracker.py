"""What a tracker gets, and which trackers there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from remote_trainer.errors import Problem
from remote_trainer.packages import install_extra

NONE = "none"
TRACKERS: Mapping[str, str] = {
    "trackio": "remote_trainer.trackers.trackio_tracker",
    "wandb": "remote_trainer.trackers.wandb_tracker",
    "tensorboard": "remote_trainer.trackers.tensorboard_tracker",
}
"""Name, also that of the library and of the extra -> module with the function ``open_tracker``."""
PROJECT = "remote-trainer"
"""The project in a tracker that groups runs by project."""
COLUMNS = ("step", "prompt", "completion", "answer", "reward")
"""Of the table of completions."""

TableRow = Sequence[str | float | None]


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker identifies it."""

    name: str
    """Unique: the name of the run folder, and a part of ``id``."""
    id: str
    """The same whenever the run is resumed."""
    folder: Path
    """For the files of the tracker, inside the run folder."""
    config: Mapping[str, Any]
    last_step: int
    """The last update that the tracker got; 0 for a new run."""


class Tracker(Protocol):
    """Gets each step once, in ascending order. Its errors end its process, not the run."""

    def log(self, step: int, numbers: Mapping[str, float], completions: Sequence[TableRow]) -> None:
        """A line of metrics.jsonl, and sample completions in `COLUMNS`, possibly none."""
        ...

    def alert(self, step: int, title: str, text: str, stops: bool) -> None:
        """An alarm of the guard; ``stops``: at its stop level."""
        ...

    def finish(self) -> None:
        """Write what is pending."""
        ...


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """Start or continue a run in one of `TRACKERS`."""
    tracker: Tracker = import_module(TRACKERS[name]).open_tracker(run)
    return tracker


def tracker_problems(name: str) -> list[Problem]:
    """A tracker that is not installed."""
    spec = None if name == NONE else find_spec(name)
    # Without a place it is a folder such as the wandb/ that wandb makes in the working directory.
    if name == NONE or (spec is not None and spec.origin is not None):
        return []
    return [
        Problem(
            "tracking.report_to",
            f"found {name}, which is not installed: {install_extra(name)}, or write {NONE}",
        )
    ]
