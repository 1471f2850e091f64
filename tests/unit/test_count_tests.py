"""scripts/count_tests.py on what pytest writes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/count_tests.py"

TESTS = """
import pytest

def test_passes(): pass

def test_fails(): assert False

@pytest.mark.skip(reason="no GPU")
def test_skips(): pass
"""


def test_runs_are_summed_and_skips_named(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    for name in ("a.xml", "b.xml"):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
        subprocess.run([*command, f"--junit-xml={tmp_path / name}"], cwd=tmp_path, check=False)
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=True
    )
    *skipped, counts = done.stdout.splitlines()
    assert skipped == ["skipped: test_some::test_skips: no GPU"] * 2
    assert counts == "2 passed, 2 skipped, 2 failed"


def test_without_a_run_it_counts_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0 passed, 0 skipped, 0 failed\n"
