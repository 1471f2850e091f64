"""A run with a tracker: it gets everything, and the run is the same as without one."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tracked_run import events, stand_in_for_trackio

from remote_trainer.config import parse_config
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.train import run
from remote_trainer.run_dir import RunDir, read_jsonl

MEASURED = ("seconds", "tokens_per_second", "peak_memory_mb")


def config_of(model: Path, output: Path, report_to: str) -> str:
    rows = [{"prompt": f"What is {i} + {i}?", "answer": f"{2 * i}"} for i in range(8)]
    data = output.parent / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {
        "model": {"name": str(model), "max_seq_length": 256},
        "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
        "data": {"train": str(data), "eval": str(data)},
        "reward": [{"type": "supervised"}],
        "training": {
            "num_generations": 2, "gradient_accumulation_steps": 1, "max_prompt_length": 64,
            "max_completion_length": 6, "max_steps": 2, "group_filter": {"min_std": 0},
        },
        "evaluation": {"samples": 1},
        "tracking": {"report_to": report_to},
        "output_dir": str(output),
    }  # fmt: skip
    return json.dumps(settings)


def numbers(folder: RunDir) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if not key.startswith(MEASURED)}
        for line in read_jsonl(folder.metrics)
    ]


def test_the_run_is_the_same_with_a_tracker(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = stand_in_for_trackio(tmp_path)
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "log.jsonl"))
    monkeypatch.setattr("remote_trainer.pipeline.check.tracker_problems", lambda name: [])
    plain, tracked = RunDir(tmp_path / "plain"), RunDir(tmp_path / "tracked")
    for folder, report_to in ((plain, "none"), (tracked, "trackio")):
        text = config_of(llama_folder, folder.root, report_to)
        run(parse_config(text, "c"), text)
    assert numbers(plain) == numbers(tracked)
    assert not plain.tracking.exists()
    seen = events(tmp_path / "log.jsonl")
    assert [event[0] for event in seen if event[0] != "alert"] == ["init", "log", "log", "finish"]
    assert seen[0][2]["config"]["model"]["name"] == f"./{llama_folder.name}"
    lines = read_jsonl(tracked.metrics)
    logged = [event for event in seen if event[0] == "log"]
    assert [event[1] for event in logged] == [1, 2]
    assert [event[2]["reward"] for event in logged] == [line["reward"] for line in lines]
    assert len(logged[0][2]["completions"]) == 1 + 2  # the names of the columns, and both


def test_a_missing_tracker_is_a_problem_of_the_check(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote_trainer.trackers.tracker.find_spec", lambda name: None)
    text = config_of(llama_folder, tmp_path / "run", "wandb")
    with pytest.raises(UserInputError, match=r"tracking.report_to: found wandb, which is not"):
        check_config(parse_config(text, "c"))
