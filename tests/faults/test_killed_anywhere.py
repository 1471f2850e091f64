"""kill -9 at every point of a run; the same command then ends with the same numbers."""

from pathlib import Path
from typing import Any

import pytest
from disturbed import new, whole, whole_shared
from tiny_run import New, go_on

__all__ = ["new", "whole", "whole_shared"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.faults]

KILLED = -9
# Where to be killed; the gate takes some of each kind, `make test-all` all.
GATE = ["sampling:4", "update:gradients:6", "save:optimizer:2", "save:manifest:2", "rollback"]
LONG = [
    "evaluation:before", "probe:1", "probe:2", "probe:3", "sampling:1", "sampling:5", "reward:3",
    "reward:5", "scoring:12", "update:5", "update:10", "update:stepped:2", "update:stepped:5",
    "log:1", "log:3", "log:5", "log:6", "save:adapter:1", "save:adapter:2", "save:kept:2",
    "save:optimizer:1", "save:rng:3", "save:state:2", "save:trainer_state:1",
    "save:trainer_state:2", "save:manifest:1",
    "save:manifest:3", "save:pruned:1", "save:pruned:3", "export:lora", "export:lora:written",
    "evaluation:after",
]  # fmt: skip
SHARED_GATE = ["update:gradients:4"]
SHARED_LONG = ["sampling:2", "update:gradients:3", "update:stepped:3", "update:stepped:5",
               "log:5", "save:optimizer:2"]  # fmt: skip


def cases(gate: list[str], long: list[str]) -> list[Any]:
    return [*gate, *(pytest.param(point, marks=pytest.mark.long) for point in long)]


@pytest.mark.parametrize("point", cases(GATE, LONG))
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    point: str, new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path)
    code, text = run.train(f"kill@{point}")
    assert code == KILLED, text
    go_on(run, whole)


@pytest.mark.parametrize("point", cases(SHARED_GATE, SHARED_LONG))
def test_it_does_so_where_completions_serve_several_updates(
    point: str, new: New, whole_shared: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path, changes={"num_iterations": 2})
    code, text = run.train(f"kill@{point}")
    assert code == KILLED, text
    go_on(run, whole_shared)


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_gets_there(
    new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path)
    for point in ("probe:1", "save:kept:1", "log:3", "save:rng:2", "update:3", "save:pruned:1"):
        code, text = run.train(f"kill@{point}")
        assert code == KILLED, f"{point}: {text}"
    go_on(run, whole)


@pytest.mark.long
@pytest.mark.parametrize("point", ["proof", "report"])
def test_what_comes_after_training_is_done_again(
    point: str, new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path)
    assert run.train(f"kill@{point}")[0] == KILLED
    code, text = run.train()
    assert code == 0, text
    assert run.numbers() == whole
    assert run.folder.report.exists()
