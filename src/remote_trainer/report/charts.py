"""Charts over the updates of a run, as plain data: charts.js draws them with plotly.js."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Any, Literal

from remote_trainer.means import mean_of_known
from remote_trainer.metrics import Metric, charted
from remote_trainer.metrics.metric import SECONDS
from remote_trainer.report.guard_signals import SHOWN, alarm_nearness
from remote_trainer.report.numbers import number, written
from remote_trainer.report.run_view import RunView, Update
from remote_trainer.report.samples import StepRewards

MOST_POINTS = 500
"""Of a line. A longer one is averaged, so that a page of many updates stays small."""
DIGITS = 6
_CUTS = {"10 %": 1, "25 %": 4, "median": 9, "75 %": 14, "90 %": 17}
"""Quantile -> its place among the 19 cuts into twentieths."""


@dataclass(frozen=True)
class Line:
    """One line; ``y`` is None where nothing is known."""

    name: str
    x: Sequence[int]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """One chart: what stands above it, and its lines."""

    key: str
    """Unique among the charts of a run."""
    title: str
    note: str
    lines: Sequence[Line]
    unit: str = ""
    """Title of the vertical axis."""
    share: bool = False
    """Values are shown as percentages."""
    form: Literal["lines", "stacked", "bands", "levels"] = "lines"
    """bands: lines from the lowest to the highest quantile; levels: 1 is a limit."""
    summary: str = ""
    """The chart in a sentence, for screen readers."""


def as_json(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    """What charts.js takes."""
    return [asdict(chart) for chart in charts]


def run_charts(
    updates: Sequence[Update],
    rewards: Sequence[StepRewards],
    guard: Mapping[str, Any] | None,
) -> list[Chart]:
    """Charts of one run, without those for which nothing was logged."""
    charts = []
    for metric in charted("alone"):
        charts += _of_metric(metric, _lines(updates, {metric.key: metric.title}))
        charts += _distribution(rewards) if metric.key == "reward" else []
    charts += _repetition(updates) + _nearness(updates, guard) + _seconds(updates)
    return charts + _logged(updates)


def overlaid_charts(views: Sequence[RunView]) -> list[Chart]:
    """Charts with one line per run, on the same axes."""
    charts = []
    for metric in charted("alone", "repetition", "overlaid"):
        key = metric.key
        lines = [line for view in views for line in _lines(view.updates, {key: view.name})]
        charts += _of_metric(metric, lines)
    return charts


def seconds_other(update: Update) -> float | None:
    """Seconds of an update outside all phases; None if the total is unknown."""
    total: float | None = update.get("seconds_step")
    if total is None:
        return None
    parts: float = sum(update.get(key) or 0.0 for key in _phases())
    return max(0.0, total - parts)


def _of_metric(metric: Metric, lines: Sequence[Line]) -> list[Chart]:
    unit = "" if metric.share or metric.unit.startswith("that of") else metric.unit
    return _chart(metric.key, metric.title, metric.note, lines, unit, metric.share)


def _repetition(updates: Sequence[Update]) -> list[Chart]:
    """Repetition within and between completions, in one chart."""
    variety = charted("repetition")
    note = "; ".join(f"{metric.title}: {metric.note}" for metric in variety)
    lines = _lines(updates, {metric.key: metric.title for metric in variety})
    return _chart("repetition", "Repetition", note, lines, share=True)


def _distribution(rewards: Sequence[StepRewards]) -> list[Chart]:
    """Quantiles of the rewards in each update."""
    steps = [each.step for each in rewards]
    bands = [_bands(each.rewards) for each in rewards]
    names = ["lowest", *_CUTS, "highest"]
    lines = [Line(name, steps, [band[i] for band in bands]) for i, name in enumerate(names)]
    note = "over the completions of an update: median, middle half and middle 80 %, extremes"
    return _chart("distribution", "Distribution of the reward", note, lines, form="bands")


def _bands(rewards: Sequence[float]) -> list[float]:
    """The lowest value, `_CUTS` and the highest value."""
    two = rewards if len(rewards) > 1 else [*rewards, *rewards]
    cuts = quantiles(two, n=20, method="inclusive")
    return [min(rewards), *(cuts[place] for place in _CUTS.values()), max(rewards)]


def _nearness(updates: Sequence[Update], guard: Mapping[str, Any] | None) -> list[Chart]:
    """How near the alarms came to their warn level."""
    lines = [Line(*each) for each in alarm_nearness(updates, guard)]
    note = f"signals of the {SHOWN} nearest alarms; at 1 the guard warns"
    return _chart("guard", "Guard", note, lines, "share of the warn level", form="levels")


def _seconds(updates: Sequence[Update]) -> list[Chart]:
    """Seconds per update by phase."""
    timed = [{**update, "seconds_other": seconds_other(update)} for update in updates]
    phases = {key: key.removeprefix("seconds_") for key in _phases()}
    phases["seconds_other"] = "other"
    # A stacked chart draws a missing value as 0, so updates without timing are left out.
    timed = [u for u in timed if any(u.get(key) is not None for key in phases)]
    lines = _lines(timed, phases)
    return _chart("seconds", "Time per update", "by phase", lines, SECONDS, form="stacked")


def _phases() -> list[str]:
    return [metric.key for metric in charted("phase")]


def _logged(updates: Sequence[Update]) -> list[Chart]:
    """Values that custom reward functions passed to log_metric, one chart per name."""
    charts = []
    names = dict.fromkeys(name for update in updates for name in update.get("logged") or {})
    for place, name in enumerate(names):
        logged = [{"step": u["step"], "value": (u.get("logged") or {}).get(name)} for u in updates]
        lines = _lines(logged, {"value": name})
        note = "logged by your reward function with log_metric"
        charts += _chart(f"logged-{place}", name, note, lines)
    return charts


def _lines(updates: Sequence[Update], labels: Mapping[str, str]) -> list[Line]:
    steps = [update["step"] for update in updates]
    return [Line(label, steps, [u.get(key) for u in updates]) for key, label in labels.items()]


def _chart(
    key: str,
    title: str,
    note: str,
    lines: Sequence[Line],
    unit: str = "",
    share: bool = False,
    form: Literal["lines", "stacked", "bands", "levels"] = "lines",
) -> list[Chart]:
    """One chart, or none if no line has a value. Lines without a value keep their place, so that a
    run has the same colour in every chart."""
    if all(value is None for line in lines for value in line.y):
        return []
    width = -(-max(len(line.x) for line in lines) // MOST_POINTS)
    if width > 1:
        note += f"; each point is the mean of {width} updates"
    summary = _summary([line for line in lines if any(y is not None for y in line.y)], share)
    thin = [_thinned(line, width) for line in lines]
    return [Chart(key, title, note, thin, unit, share, form, summary)]


def _thinned(line: Line, width: int) -> Line:
    """The means of ``width`` values each, in few digits."""
    places = range(0, len(line.x), width)
    means = [mean_of_known(line.y[at : at + width]) if width > 1 else line.y[at] for at in places]
    steps = [line.x[min(at + width, len(line.x)) - 1] for at in places]
    return Line(line.name, steps, [_rounded(value) for value in means])


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


def _summary(lines: Sequence[Line], share: bool) -> str:
    """First and last known value of each line."""
    metric = Metric("", "", "", "share, 0 to 1" if share else "")
    parts = []
    for line in lines:
        known = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
        (first, start), (last, end) = known[0], known[-1]
        parts.append(
            f"{line.name}: {written(metric, start)} at update {number(first)}, "
            f"{written(metric, end)} at update {number(last)}"
        )
    return "; ".join(parts)
