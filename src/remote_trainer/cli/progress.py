"""What is shown while something runs: a bar for people who watch, plain lines for log files."""

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
    """A bar while data files are read, on a terminal alone; it goes away when all is read."""
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
    """For log files: a line per stage, per update, and per tenth of a long count."""

    def tell(text: str) -> None:
        console.out(text, highlight=False)

    return ProgressCallbacks(
        stage=tell,
        line=lambda line, updates: tell(
            f"{describe_update(line, updates)}  {time_left(line, updates)}"
        ),
        progress=_every_tenth(tell),
    )


def _every_tenth(tell: Callable[[str], None]) -> Callable[[int, int], None]:
    """Tells of a count each time another 10 % is done."""
    told = 0

    def count(done: int, total: int) -> None:
        nonlocal told
        tenths = 10 * done // total
        if tenths > told:
            tell(f"{10 * tenths} % of {total}")
        told = tenths % 10  # the next count begins anew

    return count


def _bar_watcher(console: "Console", bar: "Progress") -> ProgressCallbacks:
    """For people who watch: one bar, of whatever is counted now."""
    task = bar.add_task("", visible=False)

    def show(done: int, total: int, text: str = "") -> None:
        bar.update(task, completed=done, total=total, description=text, visible=True)

    return ProgressCallbacks(
        stage=lambda text: console.out(text, style="bold"),
        line=lambda line, updates: show(line["step"], updates, describe_update(line, updates)),
        progress=show,
    )
