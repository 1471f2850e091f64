"""Workers under Ray Train: one is a plain run, a lost one changes nothing, Ctrl-C leaves a
checkpoint."""

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
from test_jobs import open_to_others
from test_many_processes import LAUNCH, completions_of, train, write_config

from remote_trainer.run_dir import RunDir, file_sha256, read_jsonl

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.slow

UPDATES = 10
TRAINING: dict[str, Any] = {"max_steps": UPDATES, "gradient_accumulation_steps": 1}
NOT_COMPARED = ("seconds_", "tokens_per_second", "peak_memory_mb")
SECONDS = 300


def start(config: Path, *words: str, workers: int = 2) -> "subprocess.Popen[str]":
    """`train --workers`, a thread each."""
    command = [sys.executable, "-m", "remote_trainer.cli", "train", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["REMOTE_TRAINER_CACHE"] = str(config.parent / "cache")
    environment["HOME"] = str(config.parent)
    environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.5"
    return subprocess.Popen(
        [*command, "--workers", str(workers), *words], env=environment, text=True,
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


def numbers(folder: RunDir) -> list[dict[str, Any]]:
    """The metrics of each update, without times and memory."""
    lines = read_jsonl(folder.metrics)
    return [{k: v for k, v in line.items() if not k.startswith(NOT_COMPARED)} for line in lines]


def engine_of(folder: RunDir) -> dict[str, Any]:
    """What the run says of its engine, with the ways that were taken."""
    engine: dict[str, Any] = json.loads(folder.environment.read_text())["engine"]
    return engine


def assert_same_run(found: RunDir, expected: RunDir, told: str) -> None:
    """Same completions, metrics and adapter, to the last bit."""
    steps = [line["step"] for line in read_jsonl(expected.metrics)]
    for update in steps:
        assert completions_of(found, update) == completions_of(expected, update), told
    assert numbers(found) == numbers(expected), told
    weights = "adapter_model.safetensors"
    assert file_sha256(found.adapter / weights) == file_sha256(expected.adapter / weights), told


def assert_whole(checkpoint: Path) -> dict[str, Any]:
    """Every file is as the manifest says; returns the manifest."""
    manifest: dict[str, Any] = json.loads((checkpoint / "manifest.json").read_text())
    assert "adapter.safetensors" in manifest["files"]
    for name, facts in manifest["files"].items():
        assert file_sha256(checkpoint / name) == facts["sha256"]
    return manifest


@pytest.fixture(scope="module")
def undisturbed(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Two processes without Ray."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(write_config(folder, llama_folder, **TRAINING), launch=LAUNCH)


@pytest.fixture(scope="module")
def plain(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """One process without Ray."""
    return train(write_config(tmp_path_factory.mktemp("plain"), llama_folder))


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_a_lost_worker_changes_nothing(
    undisturbed: RunDir, llama_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    config = write_config(tmp_path, llama_folder, **TRAINING)
    folder = RunDir(tmp_path / "run")
    draw = random.Random()  # another update and worker each time
    step = draw.randint(3, 6)
    process = start(config)
    wait_for_update(folder, step, process)
    os.kill(draw.choice(workers_of(process.pid)), number)
    told, _ = process.communicate(timeout=SECONDS)
    told = f"killed at update {step}: {told}"
    assert process.returncode == 0, told
    assert "attempt 2 goes on from the newest checkpoint" in told
    assert told.count(f"update {UPDATES}/{UPDATES}") == 1
    assert_same_run(folder, undisturbed, told)
    assert engine_of(folder) == engine_of(undisturbed)


def test_two_workers_keep_the_fast_path(undisturbed: RunDir, plain: RunDir) -> None:
    """Sharing of beginnings, ordered weights, fused layers: as far as one process has them here."""
    assert engine_of(undisturbed) == engine_of(plain)
    assert engine_of(plain)["ways"]["packed rows, training"] == "on"


def test_one_worker_is_a_plain_run(plain: RunDir, llama_folder: Path, tmp_path: Path) -> None:
    process = start(write_config(tmp_path, llama_folder), workers=1)
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, told
    assert_same_run(RunDir(tmp_path / "run"), plain, told)


@pytest.mark.long
def test_too_many_losses_end_the_run_and_leave_its_checkpoint(
    llama_folder: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, llama_folder, **{**TRAINING, "max_steps": 400})
    folder = RunDir(tmp_path / "run")
    process = start(config, "--set", "distributed.max_failures=0", workers=1)
    wait_for_update(folder, 3, process)
    [worker] = workers_of(process.pid)
    # In the worker torch opens a port for other workers, also where there are none.
    others = {process.pid, *children_of(process.pid)} - {worker}
    assert open_to_others(others) == []
    os.kill(worker, signal.SIGKILL)
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, told
    assert "the workers failed more often than distributed.max_failures allows" in told
    assert "The same command goes on from the newest checkpoint" in told
    assert "Traceback" not in told
    assert "attempt 2" not in told
    newest = folder.complete_checkpoints()[-1]
    assert assert_whole(newest)["step"] == folder.step_of(newest) >= 2


@pytest.mark.long
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
    assert assert_whole(RunDir(storage / "run").complete_checkpoints()[-1])["step"] == steps


@pytest.mark.long
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
