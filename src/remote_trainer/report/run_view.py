"""A run folder -> one frozen record of its contents; a missing file is None or empty."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_trainer.errors import Problem, UserInputError
from remote_trainer.report.answers import AnswerTable, answer_table
from remote_trainer.report.samples import (
    SampleTable,
    StepRewards,
    rewards_over_time,
    sample_table,
)
from remote_trainer.run_dir import RunDir, read_jsonl

Update = Mapping[str, Any]

SAMPLE_BYTES = 600_000
"""Of the texts of sampled completions in a page, divided among its runs."""


@dataclass(frozen=True)
class RunView:
    """Everything the page shows of one run, unformatted."""

    name: str
    config: str
    environment: Mapping[str, Any]
    data: Mapping[str, Any]
    updates: Sequence[Update]
    """One entry per logged update, by ascending step."""
    evaluation: Mapping[str, Any] | None
    answers: AnswerTable
    guard: Mapping[str, Any] | None
    samples: SampleTable
    rewards: Sequence[StepRewards]
    """Of some updates from the first to the last."""
    adapter: str | None
    """Folder name relative to the run folder."""
    checkpoints: Sequence[str]
    exports: Mapping[str, Mapping[str, Any]]
    """Folder name -> content of its proof.json."""


def read_runs(folders: Sequence[RunDir]) -> list[RunView]:
    """Views in the given order; raises UserInputError that lists every folder that is not a run."""
    if not folders:
        raise UserInputError.at("", "no run folder given; name at least one")
    message = f"is not a run folder; name a folder with a {folders[0].resolved_config.name}"
    problems = [Problem(str(folder), message) for folder in folders if not folder.started]
    if problems:
        raise UserInputError(problems)
    most = SAMPLE_BYTES // len(folders)
    names = _names(folders)
    return [_read_run(folder, name, most) for folder, name in zip(folders, names, strict=True)]


def _read_run(folder: RunDir, name: str, most_bytes: int) -> RunView:
    return RunView(
        name=name,
        config=folder.resolved_config.read_text(encoding="utf-8"),
        environment=_read_json(folder.environment) or {},
        data=_read_json(folder.data_report) or {},
        updates=latest_updates(_read_lines(folder.metrics)),
        evaluation=_read_json(folder.eval),
        answers=answer_table(_read_lines(folder.answers)),
        guard=_read_json(folder.guard),
        samples=sample_table(folder.completions, _read_lines, most_bytes),
        rewards=_rewards(folder.completions),
        adapter=folder.adapter.name if folder.adapter.is_dir() else None,
        checkpoints=[path.name for path in folder.complete_checkpoints()],
        exports={
            file.parent.name: proof
            for file in sorted(folder.root.glob("*/proof.json"))
            if (proof := _read_json(file)) is not None
        },
    )


def latest_updates(lines: Sequence[Update]) -> list[Update]:
    """Updates by ascending step. A repeated step replaces itself and all later ones.

    A resumed run starts from a checkpoint: lines that the crashed run logged after that checkpoint
    belong to weights that no longer exist.
    """
    updates: list[Update] = []
    for line in lines:
        while updates and updates[-1]["step"] >= line["step"]:
            updates.pop()
        updates.append(line)
    return updates


def _names(folders: Sequence[RunDir]) -> list[str]:
    """Folder names, or full paths if two folders have the same name."""
    names = [folder.root.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _unreadable(path, error) from error
    return value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return read_jsonl(path)
    except ValueError as error:
        raise _unreadable(path, error) from error


def _rewards(folder: Path) -> list[StepRewards]:
    try:
        return rewards_over_time(folder)
    except ValueError as error:
        raise _unreadable(folder, error) from error


def _unreadable(path: Path, error: ValueError) -> UserInputError:
    return UserInputError.at(str(path), f"is damaged ({error}); repair it or move it away")
