"""What a tracker gets from a run folder: everything once, in order."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tracked_run import CONFIG, line, write_alarms, write_step

from remote_trainer.run_dir import RunDir
from remote_trainer.trackers.follow import (
    SAMPLES,
    Follower,
    Progress,
    numbers_of,
    table_row,
    without_secrets,
)
from remote_trainer.trackers.tracker import COLUMNS, TRACKERS, TableRow, tracker_problems


class Recorder:
    """A tracker that keeps what it gets."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.tables: dict[int, Sequence[TableRow]] = {}
        self.alerts: list[tuple[Any, ...]] = []

    def log(self, step: int, numbers: Mapping[str, float], completions: Sequence[TableRow]) -> None:
        self.steps.append(step)
        if completions:
            self.tables[step] = completions

    def alert(self, *alert: Any) -> None:
        self.alerts.append(alert)

    def finish(self) -> None:
        pass


def follower(run: RunDir, every: int = 3) -> tuple[Follower, Recorder]:
    recorder = Recorder()
    return Follower(run, recorder, Progress(run.tracking / "x.json"), every), recorder


def test_each_line_is_sent_once_even_to_the_next_process(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    first, recorder = follower(run)
    first.send_new()
    assert recorder.steps == []
    for step in (1, 2):
        write_step(run, step)
        first.send_new()
        first.send_new()
    assert recorder.steps == [1, 2]
    # The run was killed after update 2 and goes on from a checkpoint after update 1.
    run.metrics.unlink()
    second, recorder = follower(run)
    for step in (1, 2, 3):
        write_step(run, step)
        second.send_new()
    assert recorder.steps == [3]


def test_completions_go_along_after_the_first_update_and_then_at_an_interval(
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path)
    for step in range(1, 8):
        write_step(run, step)
    sent, recorder = follower(run, every=3)
    sent.send_new()
    assert list(recorder.tables) == [1, 3, 6]
    assert len(COLUMNS) == 5
    assert recorder.tables[3] == [
        [3, "question 3", "answer 3", '["4", "four"]', None],
        [3, "question 3", "answer 0", None, 0.0],
        [3, "question 3", "answer 1", '["4", "four"]', 0.25],
        [3, "question 3", "answer 2", '["4", "four"]', 0.5],
    ]


def test_of_many_completions_some_are_shown(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_step(run, 1)
    file = run.completions_file(1)
    file.write_text(file.read_text() * 10)
    sent, recorder = follower(run)
    sent.send_new()
    assert len(recorder.tables[1]) == SAMPLES


def test_an_alarm_is_sent_once_and_again_only_if_it_becomes_severe(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    first, recorder = follower(run)
    write_alarms(run, "warn")
    first.send_new()
    first.send_new()
    assert recorder.alerts == [(2, "kl", "warn level 3, value 3.5", False)]
    write_alarms(run, "warn", "stop")
    second, recorder = follower(run)
    second.send_new()
    assert recorder.alerts == [(2, "kl", "stop level 3, value 3.5", True)]


def test_numbers_are_those_that_are_known() -> None:
    assert dict(numbers_of(line(2))) == {"reward": 0.2, "probe/accuracy": 0.25}
    assert dict(numbers_of(line(1))) == {"reward": 0.1}


def test_a_prompt_may_be_a_text() -> None:
    row = {"step": 1, "prompt": "p", "completion": "c", "answer": 4, "reward": 0.5}
    assert table_row(row) == [1, "p", "c", "4", 0.5]


def test_texts_under_the_names_of_secrets_stay_here() -> None:
    assert without_secrets(CONFIG) == {
        "training": {"seed": 1, "trl": {}},
        "reward": [{"type": "chrf"}],
    }
    assert without_secrets({"scoring": {"max_token": 8, "api_key": "x", "password": "y"}}) == {
        "scoring": {"max_token": 8}
    }


def test_a_folder_with_the_name_of_a_tracker_is_not_the_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    (problem,) = tracker_problems("wandb")
    assert "not installed" in str(problem)


def test_a_tracker_that_is_not_installed_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remote_trainer.trackers.tracker.find_spec", lambda name: None)
    assert tracker_problems("none") == []
    for name in TRACKERS:
        (problem,) = tracker_problems(name)
        assert str(problem) == (
            f"tracking.report_to: found {name}, which is not installed: python -m pip install "
            f"'remote-trainer[{name}]', or write none"
        )
