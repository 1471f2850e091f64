"""trackio: a local SQLite database and dashboard (``trackio show``).

TRACKIO_DIR moves its database, TRACKIO_PROJECT names the project. It stays on this machine unless
the user sets trackio's own TRACKIO_SPACE_ID or TRACKIO_SERVER_URL.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from remote_trainer.trackers.tracker import COLUMNS, PROJECT, TableRow, TrackedRun


class TrackioTracker:
    """A run of trackio; a `remote_trainer.trackers.tracker.Tracker`."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, numbers: Mapping[str, float], completions: Sequence[TableRow]) -> None:
        import trackio

        table = trackio.Table(columns=list(COLUMNS), data=[list(row) for row in completions])
        self._run.log({**numbers, **({"completions": table} if completions else {})}, step=step)

    def alert(self, step: int, title: str, text: str, stops: bool) -> None:
        import trackio

        level = trackio.AlertLevel.ERROR if stops else trackio.AlertLevel.WARN
        self._run.alert(title, f"update {step}: {text}", level)

    def finish(self) -> None:
        self._run.finish()


def open_tracker(run: TrackedRun) -> TrackioTracker:
    """Start the run of this name, or continue it."""
    if "TRACKIO_SPACE_ID" not in os.environ:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # else it asks the hub for the user's name
    import trackio

    return TrackioTracker(
        trackio.init(
            os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=run.name,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
    )
