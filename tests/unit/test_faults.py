"""Faults on purpose: the points and actions that exist, when they happen, and what is refused."""

import ast
import errno
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_trainer import faults
from remote_trainer.errors import UserInputError
from remote_trainer.export_formats import EXPORT_FORMATS
from remote_trainer.faults import ACTIONS, POINTS, InjectedFault, arm, fault_point

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _disarm() -> Iterator[None]:
    yield
    arm("")


def calls_in(source: str) -> Iterator[str]:
    """A regular expression for the name that each call of fault_point gives."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "fault_point":
            [name] = node.args
            parts = name.values if isinstance(name, ast.JoinedStr) else [name]
            yield "".join(
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[a-z0-9_]+"
                for part in parts
            )


def test_points_are_those_that_the_program_passes() -> None:
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    called = [pattern for source in sources for pattern in calls_in(source)]
    of_calls = [[point for point in POINTS if re.fullmatch(each, point)] for each in called]
    assert [each for each, points in zip(called, of_calls, strict=True) if not points] == []
    assert {point for points in of_calls for point in points} == set(POINTS)
    assert {point.split(":")[1] for point in POINTS if point.startswith("export:")} == set(
        EXPORT_FORMATS
    )


def test_the_page_lists_points_and_actions() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    listed = set(re.findall(r"^\| `([a-z_:0-9]+)` \|", page, re.M))
    assert {re.sub("export:[a-z0-9_]+", "export:FORMAT", point) for point in POINTS} <= (
        listed | {"export:FORMAT", "export:FORMAT:written"}
    )
    assert set(ACTIONS) <= listed
    assert "`export:FORMAT:written`" in page


def test_nothing_happens_unless_armed() -> None:
    for point in POINTS:
        fault_point(point)


def test_a_fault_happens_once_at_the_passing_that_was_named() -> None:
    arm("raise@reward:2, enospc@update")
    fault_point("reward")
    with pytest.raises(InjectedFault, match="RT_FAULT at reward"):
        fault_point("reward")
    fault_point("reward")
    with pytest.raises(OSError, match="No space left on device") as full:
        fault_point("update")
    assert full.value.errno == errno.ENOSPC
    fault_point("update")


def test_a_plus_repeats_it() -> None:
    arm("oom@save:optimizer:2+")
    fault_point("save:optimizer")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="DefaultCPUAllocator: can't allocate memory"):
            fault_point("save:optimizer")


def test_every_mistake_is_named() -> None:
    with pytest.raises(UserInputError) as refused:
        arm("kill@reward, explode@reward, kill@rewards:2, hang, term@update:0")
    told = [str(problem) for problem in refused.value.problems]
    assert told[0].startswith("RT_FAULT: explode@reward: found 'explode' as action; write")
    assert told[0].endswith(", ".join(ACTIONS))
    assert told[1].startswith("RT_FAULT: kill@rewards:2: found 'rewards' as point; write")
    assert told[1].endswith(", ".join(POINTS))
    assert told[2].startswith("RT_FAULT: hang: found '' as point")
    assert told[3] == "RT_FAULT: term@update:0: passings count from 1; write :1 or more"
    assert len(told) == 4
    assert faults._armed == []


def test_a_command_refuses_unknown_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "remote_trainer.cli", "rewards"],
        env={"RT_FAULT": "kill@nowhere", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "RT_FAULT: kill@nowhere: found 'nowhere' as point" in done.stderr
    assert "Traceback" not in done.stderr
