"""Write the report of runs to the requested file, and that of a run while it trains."""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from remote_trainer.activity import ACTIVITY
from remote_trainer.errors import UserInputError
from remote_trainer.paths import FolderLock, why_no_file
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.report import write_report, write_unfinished_report
from remote_trainer.report.run_view import read_runs
from remote_trainer.run_dir import RunDir

logger = logging.getLogger(__name__)

FIRST_SECONDS, LEAST_SECONDS = 10.0, 30.0
"""From the start to the first page of a run that trains, and between two pages."""
MOST_SHARE = 0.02
"""Of the time of a run, for such pages."""


def report_on(runs: Sequence[Path], output: Path | None = None) -> Path:
    """Write the report of one run into its folder, of several into the working directory, or to
    ``output``; returns its path.

    Raises UserInputError for folders that are not runs, for an output that cannot be written, and
    if another process writes the run: its folder must not get a report of half a run.
    """
    folders = [RunDir(path) for path in runs]
    own = output is None and len(folders) == 1
    target = output or (folders[0].report if own else Path("report.html"))
    if own and not folders[0].started:
        read_runs(folders)  # raises the problem
    if why := why_no_file(target):
        raise UserInputError.at("--output", f"{target}: {why}")
    where = f"{folders[0]} (--output FILE writes the report elsewhere)" if own else ""
    with FolderLock(folders[0].root, where) if own else nullcontext():
        return write_report(folders, target)


def with_live_report(watch: ProgressCallbacks, folder: RunDir) -> ProgressCallbacks:
    """``watch`` that also writes the report from time to time after a line of metrics.jsonl.

    A page that cannot be written stops the pages, not the run.
    """
    due = time.monotonic() + FIRST_SECONDS

    def line(values: dict[str, Any], updates: int) -> None:
        nonlocal due
        watch.line(values, updates)
        begun = time.monotonic()
        if begun < due:
            return
        try:
            with ACTIVITY.during("writing the report"):
                write_unfinished_report(folder, _progress(values, updates))
        except (OSError, UserInputError) as error:
            logger.warning("no report until the run ends: %s", error)
            due = float("inf")
            return
        ended = time.monotonic()
        due = ended + max(LEAST_SECONDS, (ended - begun) / MOST_SHARE)

    return replace(watch, line=line)


def _progress(values: dict[str, Any], updates: int) -> str:
    """What stands in place of the verdict."""
    left = round(values["seconds_step"] * (updates - values["step"]))
    return (
        f"Training: update {values['step']} of {updates}, about {left // 60}:{left % 60:02} left. "
        "Reload this page for the latest state. The verdict follows at the end."
    )
