"""Progress: a bar on a terminal, plain lines in log files."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from remote_trainer.cli.texts import describe_update, time_left
from remote_trainer.progress import ProgressCallbacks

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@contextmanager
def progress(silent: bool) -> Iterator[ProgressCallbacks]:
    """A bar with step, reward, KL and time left on a terminal; plain lines elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if silent:
        yield ProgressCallbacks()
    elif not console.is_terminal:
        yield _plain_watcher(console)
    else:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, *times, console=console) as bar:
            yield _bar_watcher(console, bar)


@contextmanager
def reading() -> Iterator[ProgressCallbacks]:
    """A bar while data files are read, only on a terminal; removed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressCallbacks()
        return
    columns = (TextColumn("checking rows"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", visible=False)
        yield ProgressCallbacks(
            progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True)
        )


def _plain_watcher(console: "Console") -> ProgressCallbacks:
    """For log files: a line per stage, per update, and per 10 % of a long count."""

    def write(text: str) -> None:
        console.out(text, highlight=False)

    return ProgressCallbacks(
        stage=write,
        line=lambda line, updates: write(
            f"{describe_update(line, updates)}  {time_left(line, updates)}"
        ),
        progress=_every_tenth(write),
    )


def _every_tenth(write: Callable[[str], None]) -> Callable[[int, int], None]:
    """Writes a line each time another 10 % of a count is done."""
    written = 0

    def count(done: int, total: int) -> None:
        nonlocal written
        tenths = 10 * done // total
        if tenths > written:
            write(f"{10 * tenths} % of {total}")
        written = tenths % 10  # the next count starts at 0

    return count


def _bar_watcher(console: "Console", bar: "Progress") -> ProgressCallbacks:
    """For a terminal: one bar for whatever is counted now."""
    task = bar.add_task("", visible=False)

    def show(done: int, total: int, text: str = "") -> None:
        bar.update(task, completed=done, total=total, description=text, visible=True)

    return ProgressCallbacks(
        stage=lambda text: console.out(text, style="bold"),
        line=lambda line, updates: show(line["step"], updates, describe_update(line, updates)),
        progress=show,
    )
