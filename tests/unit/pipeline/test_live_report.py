"""The report of a run while it trains: when it is written, and what happens if it cannot be."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.pipeline import report as report_of
from remote_trainer.pipeline.report import with_live_report
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.report import has_report
from remote_trainer.run_dir import RunDir, append_jsonl


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path / "run")
    folder.root.mkdir()
    folder.resolved_config.write_text("model: tiny\n")
    return folder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one entry is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def line(step: int) -> dict[str, Any]:
    return {"step": step, "reward": 0.5, "seconds_step": 7.0}


def test_a_page_after_ten_seconds_and_then_every_thirty(run: RunDir, clock: list[float]) -> None:
    seen: list[int] = []
    plain = ProgressCallbacks(line=lambda values, updates: seen.append(values["step"]))
    watch = with_live_report(plain, run)
    written = []
    for step, clock[0] in enumerate((9, 10, 39, 40, 69, 71), start=1):
        append_jsonl(run.metrics, line(step))
        watch.line(line(step), 20)
        if run.report.exists() and f"update {step} of 20" in run.report.read_text():
            written.append(step)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert written == [2, 4, 6]
    # 14 updates of 7 seconds are left.
    assert "Training: update 6 of 20, about 1:38 left. Reload this page" in run.report.read_text()
    assert not has_report(run)


def test_pages_take_at_most_two_per_cent_of_the_time(
    run: RunDir, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[float] = []

    def slow(folder: RunDir, progress: str) -> None:
        pages.append(clock[0])
        clock[0] += 4.0

    monkeypatch.setattr(report_of, "write_unfinished_report", slow)
    watch = with_live_report(ProgressCallbacks(), run)
    for clock[0] in (20.0, 100.0, 223.0, 224.0):
        watch.line(line(1), 20)
    assert pages == [20.0, 224.0]  # 4 s are 2 % of 200 s


def test_a_page_that_cannot_be_written_stops_no_run(
    run: RunDir, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    watch = with_live_report(ProgressCallbacks(), run)
    run.metrics.write_text("damaged\n" + json.dumps(line(1)) + "\n")
    with caplog.at_level(logging.WARNING):
        for clock[0] in (20.0, 100.0):
            watch.line(line(1), 20)
    (record,) = caplog.records
    assert "no report until the run ends: " in record.message
    assert "metrics.jsonl: is damaged" in record.message
    assert not run.report.exists()
