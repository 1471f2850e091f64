"""The report of runs, written where it was asked for."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from remote_trainer.errors import UserInputError
from remote_trainer.paths import FolderLock, why_no_file
from remote_trainer.report import write_report
from remote_trainer.report.run_view import read_runs
from remote_trainer.run_dir import RunDir


def report_on(runs: Sequence[Path], output: Path | None = None) -> Path:
    """Write the page of one run into its folder, of several into the working directory, or to
    ``output``; returns where it is.

    Raises UserInputError for folders that are no runs, for an output that cannot be written, and
    where another process writes the run: a page of half a run does not belong into its folder.
    """
    folders = [RunDir(path) for path in runs]
    own = output is None and len(folders) == 1
    target = output or (folders[0].report if own else Path("report.html"))
    if own and not folders[0].started:
        read_runs(folders)  # says what is wrong with it
    if why := why_no_file(target):
        raise UserInputError.at("--output", f"{target}: {why}")
    where = f"{folders[0]} (--output FILE writes the report elsewhere)" if own else ""
    with FolderLock(folders[0].root, where) if own else nullcontext():
        return write_report(folders, target)
