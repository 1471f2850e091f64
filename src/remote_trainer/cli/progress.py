"""Progress: a bar or a live view on a terminal, plain lines in log files, or JSON."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from remote_trainer.cli.output import say_event
from remote_trainer.cli.texts import describe_update, time_left
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import RunDir

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    Handler = logging.StreamHandler[TextIO]


@contextmanager
def progress(silent: bool) -> Iterator[ProgressCallbacks]:
    """A bar with count and time left on a terminal; plain lines elsewhere."""
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
    elif not _can_redraw(console):
        yield _plain_watcher(console)
    else:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, *times, console=console) as bar:
            yield _bar_watcher(console, bar)


@contextmanager
def training(folder: RunDir, quiet: bool, as_json: bool) -> Iterator[ProgressCallbacks]:
    """Progress of `train`: a live view on a terminal, plain lines elsewhere; JSON or nothing on
    request."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet:
        with _only_errors_logged():
            yield ProgressCallbacks()
    elif as_json:
        yield _json_watcher()
    elif _can_redraw(console) and Console().is_terminal:
        with _live_view(console, folder) as watch:
            yield watch
    else:
        yield _plain_watcher(console)


@contextmanager
def reading() -> Iterator[ProgressCallbacks]:
    """A bar while data files are read, only on a terminal; removed at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not _can_redraw(console):
        yield ProgressCallbacks()
        return
    columns = (TextColumn("checking rows"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", visible=False)
        yield ProgressCallbacks(
            progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True)
        )


def _can_redraw(console: "Console") -> bool:
    """Whether a view can be redrawn in place. `TERM=dumb` cannot; a bar needs Unicode."""
    redraws = console.is_terminal and not console.is_dumb_terminal
    return redraws and not console.options.ascii_only


@contextmanager
def _live_view(console: "Console", folder: RunDir) -> Iterator[ProgressCallbacks]:
    """Redrawn only when something is reported: training needs the processor."""
    from rich.live import Live

    # Imported here to keep --help fast.
    from remote_trainer.cli.live import TrainingView

    view = TrainingView(folder)
    root = logging.getLogger().handlers
    ours = [h for h in root if isinstance(h, logging.StreamHandler) and h.stream is sys.stderr]
    # Live replaces sys.stderr by a stream that writes above the view: log messages go there, too.
    with (
        Live(view, console=console, auto_refresh=False) as live,
        _logged_to(sys.stderr, ours),
    ):

        def count(done: int, total: int) -> None:
            view.count(done, total)
            live.refresh()

        def update(line: dict[str, Any], updates: int) -> None:
            view.update(line, updates)
            live.refresh()

        def stage(text: str) -> None:
            console.print(text, style="bold", markup=False, highlight=False)

        yield ProgressCallbacks(stage=stage, line=update, progress=count)


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


@contextmanager
def _logged_to(stream: TextIO, handlers: "Sequence[Handler]") -> Iterator[None]:
    """The handlers write to ``stream`` inside the block."""
    before = [(handler, handler.stream) for handler in handlers]
    for handler in handlers:
        handler.setStream(stream)
    try:
        yield
    finally:
        for handler, stream in before:
            handler.setStream(stream)


def _json_watcher() -> ProgressCallbacks:
    """One JSON object per line on standard output."""
    return ProgressCallbacks(
        stage=lambda text: say_event("stage", text=text),
        line=lambda line, updates: say_event("update", updates=updates, **line),
        progress=_every_tenth(lambda done, total: say_event("count", done=done, total=total)),
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
        progress=_every_tenth(
            lambda done, total: write(f"{10 * (10 * done // total)} % of {total}")
        ),
    )


def _every_tenth(report: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Calls ``report`` each time another 10 % of a count is done."""
    reported = 0

    def count(done: int, total: int) -> None:
        nonlocal reported
        tenths = 10 * done // total
        if tenths > reported:
            report(done, total)
        reported = tenths % 10  # the next count starts at 0

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
