"""Completions and rewards of some updates of a run: reading all would take too long."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from remote_trainer.references import accepted_answers
from remote_trainer.report.texts import shown
from remote_trainer.run_dir import read_jsonl

MOST_SHOWN = 6
"""Completions of an update in the ui."""
STEPS_IN_CHART, STEPS_IN_TABLE = 60, 12
PER_STEP = (16, 8, 4, 2, 1)
"""Completions of an update in the table: the first number whose texts fit in the page."""

Completion = Mapping[str, Any]
T = TypeVar("T")
Read = Callable[[Path], list[dict[str, Any]]]


@dataclass(frozen=True)
class StepRewards:
    """The rewards of one update's judged completions; at least one."""

    step: int
    rewards: Sequence[float]


@dataclass(frozen=True)
class SampledStep:
    """Completions of one update, from best to worst reward; those without a reward come last."""

    step: int
    shown: Sequence[Completion]
    total: int
    unjudged: int


@dataclass(frozen=True)
class Sample:
    """One completion as a row of the table."""

    step: int
    reward: float | None
    parts: Mapping[str, float | None]
    """Its rewards by name, if there are several."""
    tokens: int
    state: str
    """complete, or truncated at the length limit."""
    prompt: str
    completion: str
    reference: str
    """Empty without one."""


@dataclass(frozen=True)
class SampleTable:
    """Some completions of some updates, by ascending update and falling reward."""

    rows: Sequence[Sample]
    steps: Sequence[int]


def newest_step(folder: Path) -> SampledStep | None:
    """The last update with saved completions; None before the first one."""
    for file in reversed(completion_files(folder)):
        if rows := read_jsonl(file):
            return _sampled_step(rows, MOST_SHOWN)
    return None


def completion_files(folder: Path) -> list[Path]:
    """By ascending update, without empty ones."""
    files = sorted(folder.glob("step-*.jsonl"), key=lambda path: (len(path.name), path.name))
    return [path for path in files if path.stat().st_size]


def rewards_over_time(folder: Path) -> list[StepRewards]:
    """At most `STEPS_IN_CHART` updates from the first to the last.

    Raises ValueError for damaged lines.
    """
    files = spaced(completion_files(folder), STEPS_IN_CHART)
    read = (_rewards_of(path, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return [each for each in read if each is not None]


@lru_cache(maxsize=4096)
def _rewards_of(path: Path, changed: int, size: int) -> StepRewards | None:
    """Kept in memory, because a page that is open reads them every few seconds."""
    rows = read_jsonl(path)
    rewards = tuple(float(row["reward"]) for row in rows if row["reward"] is not None)
    return StepRewards(rows[0]["step"], rewards) if rewards else None


def sample_table(folder: Path, read: Read, most_bytes: int) -> SampleTable:
    """At most `STEPS_IN_TABLE` updates from the first to the last, with as many completions of each
    as fit in ``most_bytes`` of a page; at least one of each."""
    files = spaced(completion_files(folder), STEPS_IN_TABLE)
    steps = [rows for path in files if (rows := read(path))]
    for most in PER_STEP:
        chosen = [_sampled_step(rows, most) for rows in steps]
        samples = [_sample(row) for step in chosen for row in step.shown]
        if sum(_size(sample) for sample in samples) <= most_bytes:
            break
    return SampleTable(samples, [step.step for step in chosen])


def spaced(items: Sequence[T], most: int) -> list[T]:
    """First, last and evenly spaced ones in between."""
    if len(items) <= most:
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / (most - 1))] for i in range(most)] if most > 1 else [items[0]]


def _sampled_step(rows: Sequence[Completion], most: int) -> SampledStep:
    judged = sorted(
        (row for row in rows if row["reward"] is not None),
        key=lambda row: float(row["reward"]),
        reverse=True,
    )
    unjudged = [row for row in rows if row["reward"] is None]
    return SampledStep(
        rows[0]["step"], (spaced(judged, most) + unjudged)[:most], len(rows), len(unjudged)
    )


def _sample(row: Completion) -> Sample:
    answer, parts = row["answer"], row["rewards"]
    return Sample(
        row["step"],
        row["reward"],
        parts if len(parts) > 1 else {},
        row["tokens"],
        "complete" if row["ended"] else "truncated",
        shown(prompt_text(row["prompt"])),
        shown(row["completion"]),
        "" if answer is None else shown(" or ".join(accepted_answers(answer)) or str(answer)),
    )


def prompt_text(prompt: str | Iterable[Mapping[str, Any]]) -> str:
    """A prompt as one text; each message after its role."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def _size(sample: Sample) -> int:
    """Bytes of its texts in a page."""
    texts = [getattr(sample, field.name) for field in fields(sample)]
    return sum(len(escape(t).encode("utf-8", "replace")) for t in texts if isinstance(t, str))
