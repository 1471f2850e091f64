"""Charts over the updates of a run, as HTML fragments that need plotly.js on the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote_trainer.metrics import charted
from remote_trainer.report.run_view import RunView, Update

HEIGHT_PX = 240
GREY, GRID = "#7c7c7c", "rgba(128,128,128,0.25)"  # readable on white and on black
COLOURS = ("#1f83c9", "#d55e00", "#009e73", "#c66a9f", "#c98a00", "#8268c8")

Line = tuple[str, Sequence[int], Sequence[float | None]]
"""Label, steps, values."""


@dataclass(frozen=True)
class Curve:
    """One chart: a title, an explanation of its lines, and the figure."""

    title: str
    note: str
    figure: str


def run_curves(view: RunView, prefix: str) -> list[Curve]:
    """Charts of one run, without those for which nothing was logged."""
    curves = []
    for metric in charted("alone"):
        lines = _lines(view.updates, {metric.key: metric.title})
        name = f"{prefix}-{metric.key}"
        curves += _curve(metric.title, metric.note, lines, name, share=metric.share)
    curves += _repetition(view.updates, prefix) + _seconds(view.updates, prefix)
    return curves + _logged_curves(view.updates, prefix)


def _repetition(updates: Sequence[Update], prefix: str) -> list[Curve]:
    """Repetition within and between completions, in one chart."""
    variety = charted("repetition")
    note = "; ".join(f"{metric.title}: {metric.note}" for metric in variety)
    lines = _lines(updates, {metric.key: metric.title for metric in variety})
    return _curve("Repetition", note, lines, f"{prefix}-repetition", share=True)


def _seconds(updates: Sequence[Update], prefix: str) -> list[Curve]:
    """Seconds per update by phase."""
    timed = [{**update, "seconds_other": seconds_other(update)} for update in updates]
    phases = {key: key.removeprefix("seconds_") for key in _phases()}
    phases["seconds_other"] = "other"
    # A stacked chart draws a missing value as 0, so updates without timing are left out.
    timed = [u for u in timed if any(u.get(key) is not None for key in phases)]
    lines, note = _lines(timed, phases), "seconds, stacked by phase"
    return _curve("Time per update", note, lines, f"{prefix}-seconds", stacked=True)


def _phases() -> list[str]:
    return [metric.key for metric in charted("phase")]


def _logged_curves(updates: Sequence[Update], prefix: str) -> list[Curve]:
    """Values that custom reward functions passed to log_metric, one chart per name."""
    curves = []
    names = dict.fromkeys(name for update in updates for name in update.get("logged") or {})
    for number, name in enumerate(names):
        logged = [{"step": u["step"], "value": (u.get("logged") or {}).get(name)} for u in updates]
        lines = _lines(logged, {"value": "value"})
        note = "logged by your reward function with log_metric"
        curves += _curve(name, note, lines, f"{prefix}-logged-{number}")
    return curves


def overlaid_curves(views: Sequence[RunView]) -> list[Curve]:
    """Charts with one line per run, on the same axes."""
    curves = []
    for metric in charted("alone", "repetition", "overlaid"):
        key = metric.key
        lines = [line for view in views for line in _lines(view.updates, {key: view.name})]
        curves += _curve(metric.title, metric.note, lines, f"all-{key}", share=metric.share)
    return curves


def seconds_other(update: Update) -> float | None:
    """Seconds of an update outside all phases; None if the total is unknown."""
    total: float | None = update.get("seconds_step")
    if total is None:
        return None
    parts: float = sum(update.get(key) or 0.0 for key in _phases())
    return max(0.0, total - parts)


def _lines(updates: Sequence[Update], labels: Mapping[str, str]) -> list[Line]:
    steps = [update["step"] for update in updates]
    return [(label, steps, [u.get(key) for u in updates]) for key, label in labels.items()]


def _curve(
    title: str,
    note: str,
    lines: Sequence[Line],
    div_id: str,
    *,
    share: bool = False,
    stacked: bool = False,
) -> list[Curve]:
    """One chart, or none if no line has a value."""
    if all(value is None for _, _, values in lines for value in values):
        return []
    return [Curve(title, note, _figure(lines, div_id, share=share, stacked=stacked))]


def _figure(lines: Sequence[Line], div_id: str, *, share: bool, stacked: bool) -> str:
    import plotly.graph_objects as go  # slow to import

    figure = go.Figure()
    for i, (label, steps, values) in enumerate(lines):
        if all(value is None for value in values):
            continue
        colour = COLOURS[i % len(COLOURS)]  # by index: a run has the same colour in every chart
        style: dict[str, Any] = {"stackgroup": "phases"} if stacked else {}
        figure.add_scatter(
            x=list(steps),
            y=list(values),
            name=label,
            mode="lines+markers",
            line={"color": colour, "width": 1.5},
            marker={"size": 3},
            **style,
        )
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": True}
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "family": "system-ui, sans-serif", "size": 12},
        margin={"l": 44, "r": 8, "t": 8, "b": 36},
        xaxis={**axis, "title": {"text": "update"}},
        yaxis={**axis, **({"tickformat": ".0%"} if share else {})},
        showlegend=len(lines) > 1,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        hovermode="x",
        dragmode=False,  # a finger on a phone scrolls the page
    )
    html: str = figure.to_html(
        config={"displayModeBar": False, "responsive": True},
        full_html=False,
        include_plotlyjs=False,
        default_height=f"{HEIGHT_PX}px",
        div_id=div_id,
    )
    return html
