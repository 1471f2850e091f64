"""Out of memory in a whole run: it goes on with fewer tokens at once, or says what helps."""

import json
from pathlib import Path
from typing import Any

import pytest
from disturbed import new, whole
from tiny_run import New, assert_close

__all__ = ["new", "whole"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.faults]


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
