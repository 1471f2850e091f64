"""The report: one self-contained HTML file."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined, UndefinedError

from remote_trainer.faults import fault_point
from remote_trainer.report.answers import answer_table
from remote_trainer.report.charts import as_json, overlaid_charts, run_charts
from remote_trainer.report.intervals import interval_scales
from remote_trainer.report.numbers import number
from remote_trainer.report.run_view import DAMAGE, RunView, damaged, read_runs
from remote_trainer.report.samples import SampleTable
from remote_trainer.report.tables import (
    comparison_table,
    data_table,
    environment_rows,
    evaluation_table,
    export_table,
    guard_table,
    kind_table,
    same_questions,
    training_table,
)
from remote_trainer.run_dir import RunDir, write_bytes

_SECTIONS = {
    "evaluation": "Evaluation",
    "training": "Training",
    "completions": "Completions",
    "files": "Adapter and exports",
    "data": "Data",
    "environment": "Environment",
    "configuration": "Configuration",
}
_UNFINISHED = '<meta name="remote-trainer" content="unfinished">'
_HEAD_BYTES = 1000
_NO_PLOTLY = b"<script>/* plotly.js */</script>"
_UNFIT = (*DAMAGE, UndefinedError, RecursionError)
"""What the page raises for a file of a run that does not hold what this program writes."""


def write_report(folders: Sequence[RunDir], output: Path) -> Path:
    """Write one self-contained page about the runs to ``output`` and return that path.

    The same folders give the same bytes. Raises UserInputError for every folder that is not a run
    folder, or for a file that cannot be read.
    """
    fault_point("report")
    write_bytes(output, render_report(folders))
    return output


def write_unfinished_report(folder: RunDir, progress: str) -> None:
    """Write the report of a run that still trains; ``progress`` stands where the verdict will be.

    Raises what `write_report` raises.
    """
    write_bytes(folder.report, render_report([folder], progress))


def has_report(folder: RunDir) -> bool:
    """Whether the report of the whole run is there, not one of a run that still trains."""
    try:
        with folder.report.open("rb") as file:
            return _UNFINISHED.encode() not in file.read(_HEAD_BYTES)
    except OSError:
        return False


def render_report(folders: Sequence[RunDir], progress: str = "") -> bytes:
    """The page of `write_report`, without writing anything."""
    views = read_runs(folders)
    try:
        page = _render(views, progress)
    except _UNFIT as error:
        raise damaged(_cause(folders, views), error) from error
    # A lone surrogate in a hand-edited file must not prevent the report.
    written = page.encode("utf-8", "replace")
    if _NO_PLOTLY not in written:
        return written
    # As bytes, and behind the template: it is 5 MB, and a run that still trains holds each copy.
    # No text of a run can look like the element, because "<" is escaped in all of them.
    return written.replace(_NO_PLOTLY, b"<script>" + plotly_script() + b"</script>", 1)


def _cause(folders: Sequence[RunDir], views: Sequence[RunView]) -> Path:
    """The file without which the page can be made, or else the folder."""
    for folder, view in zip(folders, views, strict=True):
        if _renders(view):
            continue
        for file, without in _parts(folder, view):
            if _renders(without):
                return file
        return folder.root
    return folders[-1].root


def _renders(view: RunView) -> bool:
    try:
        _render([view], "")
    except _UNFIT:
        return False
    return True


def _parts(folder: RunDir, view: RunView) -> Iterator[tuple[Path, RunView]]:
    """(a file of the run, the view without what was read from it)."""
    yield folder.eval, replace(view, evaluation=None)
    yield folder.guard, replace(view, guard=None)
    yield folder.data_report, replace(view, data={})
    yield folder.environment, replace(view, environment={})
    yield folder.metrics, replace(view, updates=[])
    yield folder.answers, replace(view, answers=answer_table([]))
    yield folder.completions, replace(view, samples=SampleTable([], []), rewards=[])
    for name in view.exports:
        others = {other: proof for other, proof in view.exports.items() if other != name}
        yield folder.root / name / "proof.json", replace(view, exports=others)


@cache
def page_part(name: str) -> str:
    """Text of a template, style sheet or script of the report."""
    return files("remote_trainer.report").joinpath("pages", name).read_text(encoding="utf-8")


def _render(views: Sequence[RunView], progress: str) -> str:
    charts = [run_charts(view.updates, view.rewards, view.guard) for view in views]
    several = len(views) > 1
    overlaid = overlaid_charts(views) if several else []
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            runs=list(zip(views, charts, strict=True)),
            overlaid=overlaid,
            comparison=comparison_table(views) if several else None,
            same_questions=same_questions(views),
            progress=progress,
            has_charts=any([overlaid, *charts]),
        )
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(page_part),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    made.filters |= {"number": number, "as_json": as_json}
    made.globals |= {
        "sections": _SECTIONS,
        "unfinished_mark": _UNFINISHED,
        "style": page_part("style.css"),
        "scripts": page_part("charts.js") + page_part("report.js"),
        "interval_scales": interval_scales,
        "evaluation_table": evaluation_table,
        "kind_table": kind_table,
        "training_table": training_table,
        "data_table": data_table,
        "environment_rows": environment_rows,
        "guard_table": guard_table,
        "export_table": export_table,
    }
    return made


def plotly_script() -> bytes:
    """Source of plotly.js (megabytes)."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
