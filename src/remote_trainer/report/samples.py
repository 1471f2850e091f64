"""A few completions of the first, a middle and the last update with saved completions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_SHOWN = 6

Completion = Mapping[str, Any]


@dataclass(frozen=True)
class SampledStep:
    """Completions of one update, from best to worst reward; those without a reward come last."""

    step: int
    shown: Sequence[Completion]
    total: int
    unjudged: int


def sampled_steps(folder: Path, read: Callable[[Path], list[dict[str, Any]]]) -> list[SampledStep]:
    """At most three steps; files without a complete line are skipped."""
    files = sorted(folder.glob("step-*.jsonl"), key=lambda path: (len(path.name), path.name))
    files = [path for path in files if path.stat().st_size]
    places = sorted({0, len(files) // 2, len(files) - 1}) if files else []
    kept = [rows for place in places if (rows := read(files[place]))]
    return [_sampled_step(rows) for rows in kept]


def _sampled_step(rows: Sequence[Completion]) -> SampledStep:
    judged = sorted(
        (row for row in rows if row["reward"] is not None),
        key=lambda row: float(row["reward"]),
        reverse=True,
    )
    unjudged = [row for row in rows if row["reward"] is None]
    shown = (spread(judged) + unjudged)[:MOST_SHOWN]
    return SampledStep(rows[0]["step"], shown, len(rows), len(unjudged))


def spread(ranked: Sequence[Completion]) -> list[Completion]:
    """First, last and evenly spaced completions in between, at most `MOST_SHOWN`."""
    if len(ranked) <= MOST_SHOWN:
        return list(ranked)
    last = len(ranked) - 1
    return [ranked[round(i * last / (MOST_SHOWN - 1))] for i in range(MOST_SHOWN)]
