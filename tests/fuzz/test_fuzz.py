"""Any bytes in the files that commands read: an exit code, no traceback, little memory and time."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzz import input_of
from inputs import KINDS
from world import make_world

DRIVER = Path(__file__).with_name("fuzz.py")


def run(first: int, count: int, *options: str) -> Any:
    """The summary of a range of seeds, in a new process: torch is not imported there."""
    command = [sys.executable, DRIVER, "--first", str(first), "--count", str(count), *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["inputs"] == count
    return found


def test_any_input_gives_an_exit_code() -> None:
    found = run(0, 430)
    assert found["wrong"] == []
    assert found["peak_mb"] < 1024
    assert found["slowest"][2] < 10


def test_any_run_folder_gives_an_exit_code() -> None:
    assert run(0, 70, "--torch")["wrong"] == []


@pytest.mark.parametrize("options", [(), ("--torch",)])
def test_unchanged_files_are_accepted(options: Sequence[str]) -> None:
    """So what is refused is refused for its change."""
    codes = run(0, 11, "--unchanged", *options)["codes"]
    assert {code for found in codes.values() for code in found} == {"0"}


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 11_000, 1000))
def test_many_inputs_give_an_exit_code(first: int) -> None:
    found = run(first, 1000)
    assert (found["wrong"], found["peak_mb"] < 1024) == ([], True)


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 3000, 500))
def test_many_run_folders_give_an_exit_code(first: int) -> None:
    assert run(first, 500, "--torch")["wrong"] == []


def test_an_input_depends_on_its_seed_only(tmp_path: Path) -> None:
    home = make_world(tmp_path)
    kinds = list(KINDS)
    twice = [[input_of(seed, kinds, home) for seed in range(100)] for _ in range(2)]
    assert twice[0] == twice[1]
    assert {name for name, _ in twice[0]} == set(KINDS)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [("crash", "ZeroDivisionError"), ("code", "exit code 7"), ("mark", "code inside the input")],
)
def test_what_is_wrong_is_found(
    option: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fuzz

    import remote_trainer.cli

    def main() -> None:
        if option == "crash":
            _ = 1 / 0
        if option == "mark":
            (tmp_path / "outside" / "mark").touch()
        sys.exit(7 if option == "code" else 0)

    monkeypatch.setattr(remote_trainer.cli, "main", main)
    home = make_world(tmp_path)
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    given = KINDS["jsonl"].make(Random(0), home)
    before = (home / "train.jsonl").read_bytes()
    assert wrong in fuzz.Runner(tmp_path, home, show=False).run(0, "jsonl", given).wrong
    assert (home / "train.jsonl").read_bytes() == before
