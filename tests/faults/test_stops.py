"""Signals at bad times, and a reward function that never returns."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from disturbed import new, whole, whole_shared
from tiny_run import New, TinyRun, go_on

from remote_trainer.run_dir import read_jsonl
from remote_trainer.trainer import checkpoint

__all__ = ["new", "whole", "whole_shared"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.faults]

SLOW_REWARD = """
import time

def never(completions, trainer_state, **_):
    while trainer_state.global_step >= 2:
        time.sleep(0.1)
    return [float(len(completion[0]["content"])) for completion in completions]
"""


def heartbeat(run: TinyRun) -> dict[str, Any]:
    return dict(json.loads(run.folder.heartbeat.read_text()))


def test_a_run_stops_where_its_completions_are_used_up(
    new: New, whole_shared: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path, changes={"num_iterations": 2})
    code, text = run.train("term@update:1")
    assert code == 143, text
    assert [line["step"] for line in read_jsonl(run.folder.metrics)] == [1, 2]
    assert heartbeat(run)["clean_end"] is True
    assert heartbeat(run)["error"].startswith("RunInterrupted: stopped by a signal after update 2")
    go_on(run, whole_shared)


def test_a_second_ctrl_c_does_not_harm_the_save(
    new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path)
    code, text = run.train("int@update:gradients:1,int@save:optimizer:1")
    assert code == 130, text
    assert checkpoint.verify(run.folder.checkpoint(1))["step"] == 1
    go_on(run, whole)


def test_a_reward_function_that_never_returns_is_named(new: New, tmp_path: Path) -> None:
    (tmp_path / "slow_reward.py").write_text(SLOW_REWARD)
    run = new(
        tmp_path,
        changes={"keep": "last"},
        more={"reward": {"function": "slow_reward:never"}},
        patches={
            "remote_trainer.supervision.heartbeat:HANGS_AFTER_S": 1.0,
            "remote_trainer.supervision.heartbeat:HANGS_AFTER_MEDIANS": 0,
            "remote_trainer.supervision.heartbeat:BEAT_S": 0.2,
        },
    )
    command = run.start()
    until = time.monotonic() + 60
    while "update 3 has been running" not in command.text:
        assert command.process.is_alive(), command.text
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(0.5)  # the stacks are written behind the line
    command.process.kill()
    assert command.wait() == -signal.SIGKILL
    assert "in: reward function slow_reward:never; the stacks of all threads are in" in command.text
    stacks = run.folder.stacks.read_text()
    assert stacks.startswith("update 3, in: reward function slow_reward:never\n")
    assert 'slow_reward.py", line 6 in never' in stacks
    beat = heartbeat(run)
    assert beat["phase"] == "reward function slow_reward:never"
    assert (beat["update"], beat["clean_end"], beat["pid"]) == (3, False, command.process.pid)
    assert 0 < beat["memory_used"] < beat["memory_limit"]


def test_a_resumed_run_says_what_is_not_as_it_was(
    new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path)
    assert run.train("kill@log:3")[0] == -signal.SIGKILL
    before = json.loads(run.folder.environment.read_text())
    run.folder.environment.write_text(json.dumps({**before, "torch": "2.0", "cpu_threads": "64"}))
    code, text = run.train("kill@log:2")  # the count begins anew in each process
    assert code == -signal.SIGKILL
    [line] = [line for line in text.splitlines() if "bit for bit" in line]
    assert line.endswith(f"torch 2.0 before, {before['torch']} now; CPU threads 64 before, 1 now")
    code, text = run.train("kill@log:1")
    assert "bit for bit" not in text
    go_on(run, whole)
