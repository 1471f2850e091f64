"""TensorBoard: event files in the run folder (``tensorboard --logdir RUNS_DIR``).

Written by TensorBoard's own package: torch's writer of the same files would load torch.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_trainer.trackers.tracker import COLUMNS, TableRow, TrackedRun


class TensorBoardTracker:
    """An event file; a `remote_trainer.trackers.tracker.Tracker`."""

    def __init__(self, folder: Path, last_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event = Event
        self._file = EventFileWriter(str(folder))
        if last_step:  # TensorBoard drops what an earlier file holds from this step on
            start = SessionLog(status=SessionLog.START)
            self._add(last_step + 1, session_log=start)

    def log(self, step: int, numbers: Mapping[str, float], completions: Sequence[TableRow]) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for name, value in numbers.items():
            self._add(step, summary=scalar_pb(name, value))
        if completions:
            self._text(step, "completions", _table([COLUMNS, *completions]))
        self._file.flush()

    def alert(self, step: int, title: str, text: str, stops: bool) -> None:
        self._text(step, f"guard/{title}", text)
        self._file.flush()

    def finish(self) -> None:
        self._file.close()

    def _text(self, step: int, tag: str, cells: Any) -> None:
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._add(step, summary=text_pb(tag, cells))

    def _add(self, step: int, **content: Any) -> None:
        self._file.add_event(self._event(wall_time=time.time(), step=step, **content))


def _table(rows: Sequence[TableRow]) -> Any:
    """A matrix of texts, which TensorBoard shows as a table."""
    import numpy as np

    return np.array([["" if cell is None else str(cell) for cell in row] for row in rows])


def open_tracker(run: TrackedRun) -> TensorBoardTracker:
    """A further event file in the tracker's folder."""
    return TensorBoardTracker(run.folder / "tensorboard", run.last_step)
