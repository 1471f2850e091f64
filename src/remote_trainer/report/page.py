"""The report: one self-contained HTML file."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, UndefinedError

from remote_trainer.faults import fault_point
from remote_trainer.references import accepted_answers
from remote_trainer.report.answers import answer_table
from remote_trainer.report.curves import Curve, overlaid_curves, run_curves
from remote_trainer.report.numbers import number
from remote_trainer.report.run_view import DAMAGE, RunView, damaged, read_runs
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
from remote_trainer.run_dir import RunDir, write_text

_UNFIT = (*DAMAGE, UndefinedError, RecursionError)
"""What the page raises for a file of a run that does not hold what this program writes."""


def write_report(folders: Sequence[RunDir], output: Path) -> Path:
    """Write one self-contained page about the runs to ``output`` and return that path.

    The same folders give the same bytes. Raises UserInputError for every folder that is not a run
    folder, or for a file that cannot be read.
    """
    write_text(output, render_report(folders))
    return output


def render_report(folders: Sequence[RunDir]) -> str:
    """The page of `write_report` as text, without writing anything."""
    fault_point("report")
    views = read_runs(folders)
    try:
        page = _render(views)
    except _UNFIT as error:
        raise damaged(_cause(folders, views), error) from error
    # A lone surrogate in a hand-edited file must not prevent the report.
    return page.encode("utf-8", "replace").decode("utf-8")


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
        _render([view])
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
    yield folder.completions, replace(view, sampled=[])
    for name in view.exports:
        others = {other: proof for other, proof in view.exports.items() if other != name}
        yield folder.root / name / "proof.json", replace(view, exports=others)


def _render(views: Sequence[RunView]) -> str:
    curves = [run_curves(view, f"run-{i}") for i, view in enumerate(views, start=1)]
    overlaid = overlaid_curves(views) if len(views) > 1 else []
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["number"] = number
    environment.filters["reference"] = _reference
    source = files("remote_trainer.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        runs=list(zip(views, curves, strict=True)),
        overlaid=overlaid,
        comparison=comparison_table(views) if len(views) > 1 else None,
        same_questions=same_questions(views),
        plotly_script=_plotly_script(overlaid, *curves),
        evaluation_table=evaluation_table,
        kind_table=kind_table,
        training_table=training_table,
        data_table=data_table,
        environment_rows=environment_rows,
        guard_table=guard_table,
        export_table=export_table,
    )


def _reference(answer: Any) -> str:
    """An answer as text; several accepted answers are joined."""
    return " or ".join(accepted_answers(answer)) or str(answer)


def _plotly_script(*curves: Sequence[Curve]) -> str:
    """Source of plotly.js (megabytes); empty if no chart needs it."""
    if not any(curves):
        return ""
    from plotly.offline import get_plotlyjs  # slow to import

    source: str = get_plotlyjs()
    return source
