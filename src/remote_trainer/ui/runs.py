"""What the pages show of run folders. Files are opened for reading only, and no lock is taken."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_trainer.paths import is_written
from remote_trainer.report import has_report
from remote_trainer.report.charts import as_json, run_charts
from remote_trainer.report.run_view import latest_updates
from remote_trainer.report.samples import rewards_over_time
from remote_trainer.run_dir import RunDir, read_jsonl

_TAIL_BYTES = 65_536
"""At the end of metrics.jsonl; more than a line."""


@dataclass(frozen=True)
class RunSummary:
    """One row of the list."""

    name: str
    state: str
    """running, finished, stopped by the guard, or interrupted."""
    verdict: str
    """One word, or empty before the evaluation."""
    verdict_text: str
    guard_text: str
    """Why the guard stopped the run; empty if it did not."""
    step: int | None
    """Last logged update."""


def find_runs(root: Path) -> dict[str, RunDir]:
    """Name -> run folder: ``root`` itself if it is one, otherwise those in it."""
    if RunDir(root).started:
        return {root.resolve().name: RunDir(root)}
    paths = sorted(root.iterdir()) if root.is_dir() else []
    return {path.name: RunDir(path) for path in paths if _is_shown(path)}


def _is_shown(path: Path) -> bool:
    """Hidden folders are temporary; a name that is not UTF-8 has no address."""
    encodable = max(path.name) <= "\udfff" and path.name.isprintable()
    return encodable and not path.name.startswith(".") and RunDir(path).started


def summary_of(name: str, run: RunDir) -> RunSummary:
    """A damaged or missing file counts as not written yet."""
    verdict = _section(_read(run.eval), "verdict")
    guard = _read(run.guard)
    return RunSummary(
        name,
        _state(run, guard),
        str(verdict.get("word") or ""),
        str(verdict.get("text") or ""),
        str(guard.get("text") or "") if guard.get("stopped") else "",
        _last_step(run.metrics),
    )


def charts_of(run: RunDir) -> list[dict[str, Any]]:
    """The charts of the report, for charts.js. Raises ValueError for damaged lines."""
    updates = latest_updates(read_jsonl(run.metrics))
    return as_json(run_charts(updates, rewards_over_time(run.completions), _read(run.guard)))


def _state(run: RunDir, guard: dict[str, Any]) -> str:
    if is_written(run.root):
        return "running"
    if not (run.eval.exists() and has_report(run)):
        return "interrupted"
    return "stopped by the guard" if guard.get("stopped") else "finished"


def _last_step(metrics: Path) -> int | None:
    """From the end of the file, which may be long; an incomplete last line is ignored."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
        step = json.loads(lines[-1])["step"] if lines else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _section(value: dict[str, Any], key: str) -> dict[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}
