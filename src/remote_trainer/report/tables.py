"""The tables of the page: formatted numbers in rows, ready for the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote_trainer.means import mean_of_known
from remote_trainer.metrics import EVALUATION_METRICS, Metric, in_rows
from remote_trainer.report.numbers import NOTHING, change, difference, number, written
from remote_trainer.report.run_view import RunView, Update

PLACES_SHOWN = 3
SHA256_SHOWN = 12


@dataclass(frozen=True)
class Row:
    """``note`` explains ``title`` in half a sentence; it may be empty."""

    title: str
    note: str
    cells: Sequence[str]


@dataclass(frozen=True)
class Table:
    """``head`` names the cells; the column of row titles has no name."""

    head: Sequence[str]
    rows: Sequence[Row]


def evaluation_table(evaluation: Mapping[str, Any]) -> Table:
    """Before, after and change of each measured metric, with 95 % intervals."""
    before, after = evaluation["before"] or {}, evaluation["after"] or {}
    rows = []
    for metric in EVALUATION_METRICS.values():
        values = before.get(metric.key), after.get(metric.key)
        if values == (None, None):
            continue
        changed = _change(metric, *values, evaluation["verdict"])
        cells = [_measured(metric, before), _measured(metric, after), changed]
        rows.append(Row(metric.title, metric.note, cells))
    return Table(["Before", "After", "Change"], rows)


def kind_table(evaluation: Mapping[str, Any]) -> Table:
    """Accuracies by kind of row; empty if the data has no kinds."""
    before, after = ((evaluation[when] or {}).get("by_kind") or {} for when in ("before", "after"))
    metrics = [m for m in EVALUATION_METRICS.values() if m.key.startswith("accuracy")]
    head = ["Rows"]
    for metric in metrics:
        head += [f"{metric.title}: before", "after", "change"]
    rows = []
    for kind in sorted({*before, *after}):
        old, new = before.get(kind, {}), after.get(kind, {})
        cells = [number(new.get("rows", old.get("rows")))]
        for metric in metrics:
            a, b = old.get(metric.key), new.get(metric.key)
            cells += [written(metric, a), written(metric, b), change(metric, difference(a, b))]
        rows.append(Row(kind, "", cells))
    return Table(head, rows)


def training_table(updates: Sequence[Update]) -> Table:
    """Start and end of every logged metric, including the parts of the reward."""
    rows = []
    for metric in in_rows():
        values = [update.get(metric.key) for update in updates]
        rows += _start_and_end(metric, values)
        if metric.key == "reward":
            names = sorted({name for update in updates for name in update.get("rewards") or {}})
            for name in names:
                part = Metric(name, f"Reward: {name}", "only this part")
                rows += _start_and_end(part, [(u.get("rewards") or {}).get(name) for u in updates])
    return Table(["Start", "End"], rows)


def guard_table(guard: Mapping[str, Any]) -> Table:
    """Each alarm that was raised: the updates at its warn level and at its stop level."""
    seen: dict[str, dict[str, list[int]]] = {}
    for finding in guard["findings"]:
        steps = seen.setdefault(finding["alarm"], {"warn": [], "stop": []})
        steps[finding["severity"]].append(finding["step"])
    rows = [
        Row(alarm, "", [_span(steps["warn"]), _span(steps["stop"])])
        for alarm, steps in seen.items()
    ]
    return Table(["Warn level after update", "Stop level after update"], rows)


def export_table(exports: Mapping[str, Mapping[str, Any]]) -> Table:
    """Results of verifying each export in another process."""
    rows = []
    for folder, proof in exports.items():
        agree = proof.get("likeliest_agree")
        cells = [
            proof["verdict"],
            number(proof.get("slope")),
            number(proof.get("distance_mean")),
            NOTHING if agree is None else f"{number(100 * agree)} %",
        ]
        rows.append(Row(f"{folder}/", proof.get("reason", ""), cells))
    head = ["Verdict", "Slope (1: the trained model, 0: the base)", "Distance, nats per token"]
    return Table([*head, "Same most likely token"], rows)


def data_table(data: Mapping[str, Any]) -> Table:
    """Rows read, kept and dropped, one column per use of the data."""
    uses = [use for use in ("train", "eval") if data.get(use)]
    columns = [_data_cells(data[use]) for use in uses]
    titles = list(columns[0]) if columns else []
    rows = [Row(title, "", [column[title] for column in columns]) for title in titles]
    return Table([{"train": "Training", "eval": "Evaluation"}[use] for use in uses], rows)


def environment_rows(environment: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Versions and hardware of a run, with nested entries of the engine in separate rows."""
    rows: list[tuple[str, Any]] = []
    for name, value in environment.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}: {inner}", each) for inner, each in environment_rows(value)]
        else:
            rows.append((name, value))
    return rows


def comparison_table(views: Sequence[RunView]) -> Table:
    """One row per metric, one column per run."""
    verdicts = [(view.evaluation or {}).get("verdict") for view in views]
    rows = [
        Row(
            "Verdict", "", [verdict["word"] if verdict else "not evaluated" for verdict in verdicts]
        ),
        Row("Rows evaluated", "", [number((view.evaluation or {}).get("rows")) for view in views]),
    ]
    for metric in EVALUATION_METRICS.values():
        cells = [_before_after(metric, view.evaluation or {}) for view in views]
        rows += [Row(f"{metric.title}: before \N{RIGHTWARDS ARROW} after", metric.note, cells)]
    rows.append(Row("Updates logged", "", [number(len(view.updates)) for view in views]))
    rows += [_compared(metric, views) for metric in in_rows() if metric.compared]
    return Table(
        [view.name for view in views], [row for row in rows if set(row.cells) != {NOTHING}]
    )


def _compared(metric: Metric, views: Sequence[RunView]) -> Row:
    """Start and end of one metric in all runs."""
    ends = [start_and_end([u.get(metric.key) for u in view.updates]) for view in views]
    cells = [_arrow(written(metric, start), written(metric, end)) for start, end in ends]
    title = f"{metric.title} in training: start \N{RIGHTWARDS ARROW} end"
    return Row(title, metric.note, cells)


def _span(steps: Sequence[int]) -> str:
    """First and last of the updates."""
    if not steps:
        return NOTHING
    first, last = min(steps), max(steps)
    return number(first) if first == last else f"{number(first)} to {number(last)}"


def same_questions(views: Sequence[RunView]) -> bool:
    """Whether all evaluated runs used the same rows, according to their folders."""
    sources = {
        (
            (view.data.get("eval") or {}).get("sha256"),
            (view.data.get("eval") or {}).get("held_out_of_train"),
            view.evaluation.get("rows"),
        )
        for view in views
        if view.evaluation
    }
    return len(sources) <= 1


def start_and_end(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Means of the first and the last tenth of ``values`` (at least one), without the Nones."""
    width = max(1, len(values) // 10)
    return _mean(values[:width]), _mean(values[-width:])


def _start_and_end(metric: Metric, values: Sequence[float | None]) -> list[Row]:
    if all(value is None for value in values):
        return []
    ends = [written(metric, end) for end in start_and_end(values)]
    return [Row(metric.title, metric.note, ends)]


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    # A single value is returned unchanged, so that a count stays an integer.
    return present[0] if len(present) == 1 else mean_of_known(present)


def _measured(metric: Metric, measured: Mapping[str, Any]) -> str:
    value = written(metric, measured.get(metric.key))
    bounds = (measured.get("ci95") or {}).get(metric.key)
    if not bounds:
        return value
    return f"{value} ({written(metric, bounds[0])} to {written(metric, bounds[1])})"


def _change(
    metric: Metric, before: float | None, after: float | None, verdict: Mapping[str, Any]
) -> str:
    """Only the metric of the verdict has an interval for its change."""
    if metric.key != verdict.get("metric"):
        return change(metric, difference(before, after))
    judged, bounds = verdict.get("change"), verdict.get("ci95")
    text = change(metric, difference(before, after) if judged is None else judged)
    if not bounds:
        return text
    low, high = (change(metric, bound).removesuffix(" points") for bound in bounds)
    return f"{text} ({low} to {high})"


def _before_after(metric: Metric, evaluation: Mapping[str, Any]) -> str:
    before, after = evaluation.get("before") or {}, evaluation.get("after") or {}
    return _arrow(written(metric, before.get(metric.key)), written(metric, after.get(metric.key)))


def _arrow(before: str, after: str) -> str:
    if before == after == NOTHING:
        return NOTHING
    return f"{before} \N{RIGHTWARDS ARROW} {after}"


def _data_cells(use: Mapping[str, Any]) -> dict[str, str]:
    tokens = use.get("prompt_tokens") or {}
    held_out = {None: NOTHING, True: "yes", False: "no"}[use.get("held_out_of_train")]
    return {
        "File": str(use.get("file") or NOTHING),
        "SHA-256 (first digits)": (use.get("sha256") or NOTHING)[:SHA256_SHOWN],
        "Rows read": number(use.get("rows_read")),
        "Rows kept": number(use.get("rows_kept")),
        "Rows dropped": _left_out(use),
        "Prompt tokens (min / median / max)": " / ".join(
            number(tokens.get(name)) for name in ("min", "median", "max")
        ),
        "Held out from the training file": held_out,
        "Held-out rows whose prompt is also in the training rows": _count(use.get("also_in_train")),
        "Answers read as text (numbers, true, false)": _count(use.get("answers_taken_as_text")),
    }


def _count(rows: Mapping[str, Any] | None) -> str:
    """The number of rows, and the first lines."""
    if rows is None:
        return NOTHING
    places = rows["lines"][:PLACES_SHOWN]
    more = ", \N{HORIZONTAL ELLIPSIS}" if rows["rows"] > PLACES_SHOWN else ""
    return number(rows["rows"]) + (f" ({', '.join(places)}{more})" if places else "")


def _left_out(use: Mapping[str, Any]) -> str:
    parts = []
    for reason, count in sorted((use.get("rows_left_out") or {}).items()):
        places = (use.get("left_out") or {}).get(reason) or []
        more = ", \N{HORIZONTAL ELLIPSIS}" if len(places) > PLACES_SHOWN else ""
        where = f" ({', '.join(places[:PLACES_SHOWN])}{more})" if places else ""
        parts.append(f"{reason}: {number(count)}{where}")
    return "; ".join(parts) or "none"
