"""scripts/check_resolution.py against a uv that says what the test wants."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(folder: Path, answer: str | None, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """The script with nothing on the PATH but a fake uv that prints ``answer``; None: no uv."""
    if answer is not None:
        (folder / "answer").write_text(answer)
        uv = folder / "uv"
        uv.write_text(f"#!/bin/sh\n/bin/cat {folder}/answer {'>&2' if code else ''}\nexit {code}\n")
        uv.chmod(0o755)
    return subprocess.run(
        [sys.executable, ROOT / "scripts/check_resolution.py"],
        capture_output=True, text=True, env={"PATH": str(folder)}, check=False,
    )  # fmt: skip


def test_without_uv_it_says_how_to_get_it(tmp_path: Path) -> None:
    done = run(tmp_path, None)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "uv is not on the PATH: python -m pip install uv\n"


def test_what_constraints_pin_passes(tmp_path: Path) -> None:
    done = run(tmp_path, "torch==2.13.0\nHuggingface.Hub==1.33.0\nsetuptools==1\n")
    assert done.returncode == 0
    assert "ok | unsloth | 3.12 | pinned | 3 packages: torch 2.13.0" in done.stdout


def test_a_package_without_a_pin_and_a_conflict_are_failures(tmp_path: Path) -> None:
    done = run(tmp_path, "torch==2.13.0\nno-such-thing==1\n")
    assert done.returncode == 1
    assert "FAIL | ray | 3.11 | pinned | constraints.txt does not pin no-such-thing" in done.stdout
    assert "ok | ray | 3.11 | free |" in done.stdout
    done = run(tmp_path, "error: No solution found", code=1)
    assert done.returncode == 1
    assert "FAIL | ray | 3.11 | free | error: No solution found" in done.stdout
