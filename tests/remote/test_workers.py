"""Two workers under Ray Train: a lost worker changes nothing, and Ctrl-C leaves a checkpoint."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_many_processes import LAUNCH, completions_of, train, weights, write_config

from remote_trainer.run_dir import RunDir, file_sha256, read_jsonl

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.slow

UPDATES = 12
TRAINING: dict[str, Any] = {"max_steps": UPDATES, "gradient_accumulation_steps": 1}
SECONDS = 300


def start(config: Path, *words: str) -> "subprocess.Popen[str]":
    """`train --workers 2`, a thread each."""
    command = [sys.executable, "-m", "remote_trainer.cli", "train", str(config), "--workers", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["REMOTE_TRAINER_CACHE"] = str(config.parent / "cache")
    environment["HOME"] = str(config.parent)
    environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.5"
    return subprocess.Popen(
        [*command, *words], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for_update(folder: RunDir, step: int, process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + SECONDS
    while len(read_jsonl(folder.metrics)) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.005)


def children_of(pid: int) -> Iterator[int]:
    """All processes below one."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield child
            yield from children_of(child)


def workers_of(pid: int) -> list[int]:
    names = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children_of(pid)}
    return sorted(child for child, name in names.items() if b"RayTrainWorker" in name)


def test_a_killed_worker_changes_nothing(llama_folder: Path, tmp_path: Path) -> None:
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    expected = train(
        write_config(tmp_path / "undisturbed", llama_folder, **TRAINING), launch=LAUNCH
    )
    config = write_config(tmp_path / "killed", llama_folder, **TRAINING)
    folder = RunDir(tmp_path / "killed" / "run")
    draw = random.Random()  # another update and worker each time
    step = draw.randint(3, 8)
    process = start(config)
    wait_for_update(folder, step, process)
    victim = draw.choice(workers_of(process.pid))
    os.kill(victim, signal.SIGKILL)
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, told
    assert "attempt 2 goes on from the newest checkpoint" in told, step
    assert told.count(f"update {UPDATES}/{UPDATES}") == 1
    assert torch.equal(weights(folder), weights(expected)), step
    assert [line["step"] for line in read_jsonl(folder.metrics)] == list(range(1, UPDATES + 1))
    for update in range(1, UPDATES + 1):
        assert completions_of(folder, update) == completions_of(expected, update)


def test_the_driver_stops_with_a_checkpoint_and_storage_has_the_run(
    llama_folder: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, llama_folder, **{**TRAINING, "max_steps": 400})
    folder, storage = RunDir(tmp_path / "run"), tmp_path / "storage"
    process = start(config, "--storage", str(storage))
    wait_for_update(folder, 3, process)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, told
    assert "stopped by a signal after update" in told
    newest = folder.complete_checkpoints()[-1]
    steps = len(read_jsonl(folder.metrics))
    assert folder.step_of(newest) == steps < 400
    mirrored = RunDir(storage / "run").complete_checkpoints()[-1]
    manifest = json.loads((mirrored / "manifest.json").read_text())
    assert manifest["step"] == steps
    for name, facts in manifest["files"].items():
        assert file_sha256(mirrored / name) == facts["sha256"]


def test_a_mistake_of_the_user_ends_the_run_at_once(llama_folder: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, llama_folder, **{**TRAINING, "max_prompt_length": 1})
    process = start(config)
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 2, told
    assert told.count("longer than training.max_prompt_length=1") == 1
    assert "attempt" not in told
    assert not RunDir(tmp_path / "run").started


@pytest.mark.long
def test_a_fault_happens_once_in_the_main_worker(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt would count the passings of a point anew, and be killed there again."""
    monkeypatch.setenv("RT_FAULT", "kill@save:optimizer:2")
    config = write_config(tmp_path, llama_folder, **TRAINING)
    process = start(config)
    told, _ = process.communicate(timeout=2 * SECONDS)
    assert process.returncode == 0, told
    assert "attempt 2 goes on from the newest checkpoint" in told
    assert "attempt 3" not in told
    lines = read_jsonl(RunDir(tmp_path / "run").metrics)
    assert [line["step"] for line in lines] == list(range(1, UPDATES + 1))
