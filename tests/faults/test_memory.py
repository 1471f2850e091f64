"""Out of memory in a whole run: it goes on with fewer tokens at once, or says what helps."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from disturbed import new, whole
from fake_container import FakeContainer
from forked import Command
from tiny_run import New, TinyRun, assert_close

from remote_trainer.supervision.heartbeat import read_heartbeat

__all__ = ["new", "whole"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.faults]

GB = 10**9
PAUSES = ("BEAT_S", "LONGEST_PAUSE_S")


@pytest.mark.parametrize("point", ["update:3", pytest.param("scoring:9", marks=pytest.mark.long)])
def test_a_run_goes_on_with_fewer_tokens_at_once(
    point: str, new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path)
    code, text = run.train(f"oom@{point},kill@log:5")
    assert code == -9, text
    assert "at most 2048 tokens go through the model at once" in text
    assert json.loads(run.folder.environment.read_text())["tokens_per_pass"] == 2048
    code, text = run.train("raise@proof")
    assert "RT_FAULT at proof" in text
    assert_close(run.numbers(), whole)
    assert json.loads(run.folder.environment.read_text())["tokens_per_pass"] == 2048


@pytest.mark.long
def test_memory_may_be_missing_more_than_once(
    new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    """The second micro-step fails: what the first one added to the gradient is kept."""
    run = new(tmp_path)
    text = run.train("oom@update:2,oom@update:5,raise@proof")[1]
    assert "RT_FAULT at proof" in text
    assert "at most 1024 tokens" in text
    assert_close(run.numbers(), whole)


def test_a_run_that_cannot_go_on_says_what_helps(new: New, tmp_path: Path) -> None:
    run = new(tmp_path)
    code, text = run.train("oom@update:5+")
    assert code == 1
    assert "error: out of memory in: update (DefaultCPUAllocator: can't allocate" in text
    assert "Three settings help: a lower training.max_completion_length" in text
    assert "Traceback" not in text
    beat = json.loads(run.folder.heartbeat.read_text())
    assert (beat["clean_end"], beat["error"].split(":")[0]) == (True, "OutOfMemoryError")


def test_memory_missing_elsewhere_is_no_traceback_either(new: New, tmp_path: Path) -> None:
    run = new(tmp_path)
    code, text = run.train("oom@sampling:2")
    assert code == 1
    assert "error: out of memory in: sampling" in text
    assert "Traceback" not in text


@pytest.mark.long
def test_a_run_that_the_kernel_killed_for_its_memory_is_recognised(
    new: New, tmp_path: Path
) -> None:
    container = FakeContainer(tmp_path / "container", 100 * GB)
    quick = {f"remote_trainer.supervision.heartbeat:{name}": 0.05 for name in PAUSES}
    run = new(tmp_path / "killed", patches={**container.patches, **quick})
    command = run.start("hang@sampling")
    wait_for_beat(run, command, "phase", "sampling")
    container.use(95 * GB)
    wait_for_beat(run, command, "memory_used", 95 * GB)
    command.process.kill()  # as the kernel does
    command.wait()
    container.use(0)
    code, text = run.train("kill@sampling")
    assert code == -signal.SIGKILL
    told = f"(pid {command.process.pid}) was killed in: sampling, update 1, with 95.0 of 100.0 GB"
    assert text.count(f"the last process of this run {told}") == 1
    assert "probably for lack of memory" in text
    code, text = run.train("kill@sampling")  # that one was killed with memory to spare
    assert "lack of memory" not in text


def wait_for_beat(run: TinyRun, command: Command, key: str, value: object) -> None:
    until = time.monotonic() + 60
    while (read_heartbeat(run.folder) or {}).get(key) != value:
        assert command.process.is_alive(), command.text
        assert time.monotonic() < until
        time.sleep(0.01)
