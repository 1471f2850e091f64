"""heartbeat.json: what it says while a run works, at its end, and when an update hangs."""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remote_trainer.activity import ACTIVITY, Activity
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import RunDir
from remote_trainer.supervision import heartbeat
from remote_trainer.supervision.heartbeat import HEARTBEAT_KEYS, Heartbeat, noting_phases


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_phases_nest_and_updates_are_timed() -> None:
    activity = Activity()
    assert (activity.phase, activity.update, activity.median_seconds) == ("starting", 0, 0.0)
    activity.begin_update(1)
    with activity.during("sampling"):
        assert activity.phase == "sampling"
        with pytest.raises(ValueError, match="no"), activity.during("reward function a:b"):
            raise ValueError("no")
        assert activity.phase == "sampling"
    assert activity.phase == "update"
    activity.end_update()
    activity.end_update()  # counted once
    assert (activity.update, activity.update_since) == (1, None)
    assert 0 <= activity.median_seconds < 1


def test_it_follows_the_phase_and_tells_how_the_run_ended(folder: RunDir) -> None:
    with Heartbeat(folder):
        begun = json.loads(folder.heartbeat.read_text())
        assert list(begun) == list(HEARTBEAT_KEYS)
        assert (begun["pid"], begun["clean_end"]) == (os.getpid(), False)
        noting_phases(ProgressCallbacks()).stage("loading a model")
        wait_until(lambda: "loading a model" in folder.heartbeat.read_text())
    ended = json.loads(folder.heartbeat.read_text())
    assert (ended["clean_end"], ended["error"]) == (True, None)
    with (
        pytest.raises(ValueError, match="broken"),
        Heartbeat(folder),
        ACTIVITY.during("outside"),
        ACTIVITY.during("inside"),
    ):
        raise ValueError("broken")
    ended = json.loads(folder.heartbeat.read_text())
    assert ended["phase"] == "inside"
    assert (ended["clean_end"], ended["error"]) == (True, "ValueError: broken")


def test_a_folder_that_is_gone_does_not_come_back(folder: RunDir) -> None:
    with Heartbeat(folder):
        shutil.rmtree(folder.root)
        ACTIVITY.enter("something else")
        time.sleep(0.1)
    assert not folder.root.exists()


def test_an_update_that_hangs_is_told_once_with_its_phase(
    folder: RunDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeat, "HANGS_AFTER_S", 0.05)
    caplog.set_level(logging.WARNING)
    with Heartbeat(folder):
        ACTIVITY.begin_update(1_000)
        with ACTIVITY.during("reward function a:b"):
            wait_until(folder.stacks.exists)
            time.sleep(0.1)
        ACTIVITY.end_update()
    [line] = caplog.messages
    assert line.startswith("update 1000 has been running for 0 minutes")
    assert f"in: reward function a:b; the stacks of all threads are in {folder.stacks}" in line
    stacks = folder.stacks.read_text()
    assert stacks.startswith("update 1000, in: reward function a:b\n")
    assert "test_an_update_that_hangs_is_told_once_with_its_phase" in stacks


def test_a_long_update_among_long_updates_does_not_hang(
    folder: RunDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(heartbeat, "HANGS_AFTER_S", 0.0)
    monkeypatch.setattr(Activity, "median_seconds", 1.0)
    with Heartbeat(folder):
        ACTIVITY.begin_update(2_000)
        time.sleep(0.2)
    assert caplog.messages == []
    assert not folder.stacks.exists()


@pytest.mark.parametrize(
    ("used", "clean_end", "told"), [(95, False, True), (85, False, False), (95, True, False)]
)
def test_a_process_that_the_kernel_killed_for_memory_is_recognised(
    used: int, clean_end: bool, told: bool, folder: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    last = {"pid": 7, "phase": "update", "update": 3, "clean_end": clean_end}
    memory = {"memory_used": used * 1e9, "memory_limit": 100e9}
    folder.heartbeat.write_text(json.dumps({**last, **memory}))
    with Heartbeat(folder):
        pass
    if not told:
        assert caplog.messages == []
        return
    [line] = caplog.messages
    assert line.startswith(
        "the last process of this run (pid 7) was killed in: update, update 3, with 95.0 of 100.0 "
        "GB of memory in use: probably for lack of memory."
    )
    assert json.loads(folder.heartbeat.read_text())["pid"] == os.getpid()


def test_an_old_or_broken_heartbeat_says_nothing(folder: RunDir) -> None:
    assert heartbeat.why_killed(heartbeat.read_heartbeat(folder)) is None
    folder.heartbeat.write_text("{")
    assert heartbeat.why_killed(heartbeat.read_heartbeat(folder)) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"memory_used": "much"}, {"memory_limit": float("nan")}, {"memory_used": None},
        {"memory_used": 10**400}, {"phase": None, "memory_limit": [1]},
    ],
)  # fmt: skip
def test_a_heartbeat_of_another_form_is_none(folder: RunDir, changed: dict[str, object]) -> None:
    whole = {**dict.fromkeys(HEARTBEAT_KEYS), "memory_used": 1, "memory_limit": 2}
    folder.heartbeat.write_text(json.dumps(whole))
    assert heartbeat.read_heartbeat(folder) == whole
    folder.heartbeat.write_text(json.dumps({**whole, **changed}))
    assert heartbeat.read_heartbeat(folder) is None
    folder.heartbeat.write_text(json.dumps({"memory_used": 1, "memory_limit": 2}))
    assert heartbeat.read_heartbeat(folder) is None
