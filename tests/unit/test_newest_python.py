"""scripts/newest_python.py on made-up machines."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts/newest_python.py"


def stand_in(path: Path, version: str, code: int = 0) -> str:
    """A Python that says it is of this version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def chosen(folder: Path) -> str:
    environment = {"PATH": str(folder / "bin"), "PYENV_ROOT": str(folder / "pyenv")}
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


def test_where_there_is_none_it_is_the_python_that_asks(tmp_path: Path) -> None:
    assert chosen(tmp_path) == sys.executable


def test_pyenvs_latest_where_the_name_on_the_path_does_not_run(tmp_path: Path) -> None:
    stand_in(tmp_path / "bin/python3.13", "3.13", code=127)
    stand_in(tmp_path / "pyenv/versions/3.13.9/bin/python", "3.13")
    stand_in(tmp_path / "pyenv/versions/3.12.1/bin/python", "3.12")
    latest = stand_in(tmp_path / "pyenv/versions/3.13.11/bin/python", "3.13")
    assert chosen(tmp_path) == latest


def test_the_path_comes_first(tmp_path: Path) -> None:
    stand_in(tmp_path / "pyenv/versions/3.13.0/bin/python", "3.13")
    named = stand_in(tmp_path / "bin/python3.13", "3.13")
    assert chosen(tmp_path) == named
