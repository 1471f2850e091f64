"""Write the report of runs to the requested file."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from remote_trainer.errors import UserInputError
from remote_trainer.paths import FolderLock, why_no_file
from remote_trainer.report import write_report
from remote_trainer.report.run_view import read_runs
from remote_trainer.run_dir import RunDir


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
