"""The commands of docs/tutorial.md, in order, in an empty folder, with a tiny model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
BUILTIN = "  name: builtin/smollm2-135m-instruct\n"
SEEN = {
    "init": "supervised: the reference answers are in answer_field: response",
    "check": "config.yaml: no problems",
    "train": "adapter: runs/first/adapter",
    "report": "runs/first/report.html",
    "export": "merged_16bit: runs/first/merged_16bit",
    "chat": "you: ",
}
"""Command -> a part of its output."""

pytestmark = pytest.mark.slow


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.M)


def test_the_tutorial(llama_folder: Path, tmp_path: Path) -> None:
    """The tiny model is put in after `init`: it takes shorter texts than the built-in one."""
    programs, place = tmp_path / "bin", tmp_path / "empty"
    programs.mkdir()
    place.mkdir()
    program = programs / "remote-trainer"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m remote_trainer.cli "$@"\n')
    program.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    tiny = f"  name: {llama_folder}\n  max_seq_length: 256\n"
    commands = []
    for block in blocks():
        done = subprocess.run(
            ["sh", "-ec", block],
            cwd=place,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        found = re.search(r"remote-trainer (\w+)", block)
        if found:
            commands.append(found[1])
            assert SEEN[found[1]] in done.stdout, done.stdout + done.stderr
        if "init" in commands[-1:]:
            place = place / "my-run"
            config = place / "config.yaml"
            text = config.read_text().replace(BUILTIN, tiny)
            short = "training:\n  max_prompt_length: 128\n"
            config.write_text(text.replace("training:\n", short))
    assert commands == ["init", "check", "train", "report", "export", "chat"]
    assert json.loads((place / "runs/first/merged_16bit/proof.json").read_text())["verdict"] in (
        "PASS",
        "INCONCLUSIVE",
    )
