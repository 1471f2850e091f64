"""Two real processes and one run folder: the second is refused, and the first is not disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_cli import command
from test_pipeline import data_files, text_for

from remote_trainer.paths.lock import LOCK
from remote_trainer.run_dir import RunDir, read_jsonl

__all__ = ["data_files"]  # a fixture

DEADLINE = 180.0


@pytest.fixture
def started(llama_folder: Path, data_files: Any, tmp_path: Path) -> Any:
    """(config, run folder, a process that trains there and does not end by itself)."""
    folder = RunDir(tmp_path / "run")
    settings = json.loads(text_for(llama_folder, data_files, folder.root))
    settings["training"] |= {"max_steps": 100_000, "save_steps": 1000}
    settings["guard"] = {"action": "off"}
    settings["data"]["eval"] = "none"
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(settings))
    with subprocess.Popen(
        [sys.executable, "-m", "remote_trainer.cli", "train", config, "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            until = time.monotonic() + DEADLINE
            while len(read_jsonl(folder.metrics)) < 2:
                assert process.poll() is None, process.stdout and process.stdout.read()
                assert time.monotonic() < until
                time.sleep(0.1)
            yield config, folder, process
        finally:
            process.kill()


def test_the_second_is_refused_whatever_it_wants_to_write(started: Any, tmp_path: Path) -> None:
    config, folder, process = started
    for arguments in (
        ("train", config),
        ("train", config, "--resume", "never"),
        ("train", config, "--allow-changed", "--set", "training.seed=1"),
        ("report", folder),
    ):
        second = command(*arguments)
        assert second.returncode == 2
        assert f"{folder} is being written by process {process.pid} on " in second.stderr
        assert "c.yaml --quiet" in second.stderr
        assert second.stderr.endswith("loaded:\n")  # at once, before anything is loaded
    assert not (tmp_path / "run.1").exists()
    read = command("report", folder, "--output", tmp_path / "page.html")
    assert read.returncode == 0, read.stderr
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE) == 143
    steps = [line["step"] for line in read_jsonl(folder.metrics)]
    assert steps == list(range(1, len(steps) + 1))
    assert not (folder.root / LOCK).exists()


def test_a_killed_process_leaves_no_obstacle(started: Any) -> None:
    config, folder, process = started
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (folder.root / LOCK).exists()
    done = command("train", config, "--quiet", "--resume", "never",
                   "--set", "training.max_steps=1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (folder.root / LOCK).exists()
    assert not (folder.root.with_name("run.1") / LOCK).exists()
