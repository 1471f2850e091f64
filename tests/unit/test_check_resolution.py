"""scripts/check_resolution.py against a uv that says what the test wants."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/check_resolution.py"


def run(
    folder: Path, answer: str | None, code: int = 0, script: Path = SCRIPT, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """The script with nothing on the PATH but a fake uv that prints ``answer``; None: no uv."""
    if answer is not None:
        (folder / "answer").write_text(answer)
        uv = folder / "uv"
        uv.write_text(f"#!/bin/sh\n/bin/cat {folder}/answer {'>&2' if code else ''}\nexit {code}\n")
        uv.chmod(0o755)
    return subprocess.run(
        [sys.executable, script, *arguments],
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


def test_both_sets_are_asked_each_for_its_own_pythons(tmp_path: Path) -> None:
    lines = run(tmp_path, "torch==2.13.0\n").stdout.splitlines()
    asked = {tuple(line.split(" | ")[1:4]) for line in lines}
    newest = {("train", python, "newest") for python in ("3.11", "3.13", "3.14")}
    assert newest <= asked
    assert ("ray", "3.13", "pinned") not in asked
    assert ("unsloth", "3.13", "newest") not in asked


def test_the_newest_set_is_written_from_what_resolves(tmp_path: Path) -> None:
    for name in ("scripts", "bin"):
        (tmp_path / name).mkdir()
    script = tmp_path / "scripts/check_resolution.py"
    script.write_text(SCRIPT.read_text())
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\ntrl==1.14.2\n")
    run(tmp_path / "bin", "trl==1.99.0\nsetuptools==1\nTorch==2.15.0\n", 0, script, "--write")
    lines = (tmp_path / "constraints-newest.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["torch==2.15.0", "trl==1.99.0"]
