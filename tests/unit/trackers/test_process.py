"""The process of a tracker: whatever its library does, the run goes on."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tracked_run import CONFIG, events, stand_in_for_trackio, write_alarms, write_step

from remote_trainer.progress import SILENT
from remote_trainer.run_dir import RunDir
from remote_trainer.trackers import process
from remote_trainer.trackers.process import TrackerProcess

PATIENCE_S = 30.0


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in for trackio writes."""
    modules = stand_in_for_trackio(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "log.jsonl"))
    monkeypatch.delenv("TRACKIO_PROJECT", raising=False)
    return tmp_path / "log.jsonl"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "mine")


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_run_and_its_continuation_are_one_run_of_the_tracker(log: Path, run: RunDir) -> None:
    with TrackerProcess("trackio", run, CONFIG, every=10):
        write_step(run, 1)
        until(lambda: len(events(log)) == 2)  # while the run goes on
        write_step(run, 2)
        write_alarms(run, "warn")
    with TrackerProcess("trackio", run, CONFIG, every=10):
        write_step(run, 3)
    kinds = [event[0] for event in events(log)]
    assert kinds == ["init", "log", "log", "alert", "finish", "init", "log", "finish"]
    first, second = (event for event in events(log) if event[0] == "init")
    assert first == second
    assert first[1] == "remote-trainer"
    assert first[2]["name"].startswith("mine-")
    assert (first[2]["resume"], first[2]["embed"]) == ("allow", False)
    assert [event[1] for event in events(log) if event[0] == "log"] == [1, 2, 3]
    assert events(log)[1][2]["reward"] == 0.1
    assert events(log)[1][2]["completions"][1][1] == "question 1"
    assert "hf_secret" not in log.read_text()


@pytest.mark.parametrize("place", ["init", "log", "finish"])
@pytest.mark.parametrize("kind", ["raise", "exit"])
def test_a_tracker_that_fails_costs_one_warning(
    log: Path,
    run: RunDir,
    kind: str,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("STAND_IN_TROUBLE", f"{kind}@{place}")
    with TrackerProcess("trackio", run, CONFIG, every=10) as tracker:
        watch = tracker.watching(SILENT)
        write_step(run, 1)
        if place != "finish":
            assert tracker._process is not None
            until(lambda: tracker._process is None or tracker._process.poll() is not None)
        watch.line({}, 1)
        watch.line({}, 1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    reason = "RuntimeError: no connection" if kind == "raise" else "no output"
    assert record.getMessage() == (
        f"tracking.report_to: trackio failed ({reason}); the run goes on without it, and "
        f"metrics.jsonl has everything. Its output is in {run.tracking / 'trackio.log'}"
    )


@pytest.mark.parametrize("place", ["init", "log", "finish"])
def test_a_tracker_that_hangs_is_ended_after_the_run(
    log: Path,
    run: RunDir,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("STAND_IN_TROUBLE", f"hang@{place}")
    monkeypatch.setattr(process, "FINISH_S", 2.0)
    with TrackerProcess("trackio", run, CONFIG, every=10) as tracker:
        watch = tracker.watching(SILENT)
        begun = time.monotonic()
        for step in range(1, 200):
            write_step(run, step)
            watch.line({}, 200)
        assert time.monotonic() - begun < 5
        child = tracker._process
    assert child is not None
    assert child.poll() == -signal.SIGKILL
    (record,) = caplog.records
    assert "trackio did not finish within 2 s; the run goes on" in record.getMessage()


def test_no_tracker_is_no_process_and_no_folder(run: RunDir) -> None:
    with TrackerProcess("none", run, CONFIG, every=10) as tracker:
        tracker.watching(SILENT).line({}, 1)
    assert not run.tracking.exists()


def test_a_process_that_cannot_be_started_costs_one_warning(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with TrackerProcess("trackio", run, CONFIG, every=10) as tracker:
        tracker.watching(SILENT).line({}, 1)
    (record,) = caplog.records
    assert "trackio could not be started ([Errno 2]" in record.getMessage()


_KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from remote_trainer.run_dir import RunDir
from remote_trainer.trackers.process import TrackerProcess
from tracked_run import CONFIG, write_step
run = RunDir({run!r})
with TrackerProcess("trackio", run, CONFIG, every=10):
    write_step(run, 1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_when_the_run_is_killed_the_tracker_writes_what_there_is_and_ends(
    log: Path, run: RunDir
) -> None:
    text = _KILLED.format(tests=str(Path(__file__).parent), run=str(run))
    done = subprocess.run([sys.executable, "-c", text], check=False)
    assert done.returncode == -signal.SIGKILL
    until(lambda: bool(events(log)) and events(log)[-1] == ["finish"])
    assert [event[0] for event in events(log)] == ["init", "log", "finish"]
