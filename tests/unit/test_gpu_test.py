"""scripts/gpu_test.py: what `make test-gpu` says without a card, and the table that it prints."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "gpu_test.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_test"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def called(folder: Path, *arguments: str, dry: str = "") -> "subprocess.CompletedProcess[str]":
    """As the Makefile calls it, on a machine without nvidia-smi."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "PATH": str(folder), "GPU_DRY": dry},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_card_it_says_so_in_one_sentence(tmp_path: Path) -> None:
    for arguments in ([], ["--card"]):
        done = called(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            "make test-gpu needs an NVIDIA GPU with its driver, and nvidia-smi lists none here; "
            "GPU_DRY=1 make test-gpu runs the steps that need no card\n"
        )
    assert called(tmp_path, "--card", dry="1").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_card_is_enough_to_begin(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034, 580.1'\n")
    program.chmod(0o755)
    assert called(tmp_path, "--card").returncode == 0


def test_the_table_and_the_file(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    report = script.Report(dry=False)
    report.see("test_a", "passed", 60.0, 9.5, "")  # its set-up
    report.see("test_a", "passed", 1.25, 3.0, "")
    report.see("test_longer", "failed", 2.0, 12.0, f"{Path.home()}/run: no room")
    report.see("test_c", "skipped", 0.0, 0.0, "no unsloth")
    assert script.table(list(report.cases.values())) == [
        "case         result  seconds  peak GiB",
        "test_a       PASS       61.2       9.5",
        "test_longer  FAIL        2.0      12.0",
        "test_c       SKIP        0.0         -",
    ]
    told = report.as_json()
    assert json.loads(json.dumps(told)) == told
    assert not told["passed"]
    assert told["cases"][1]["said"] == "~/run: no room"
    assert {"torch", "vllm", "unsloth", "device"} <= set(told["environment"])


@pytest.mark.long
def test_a_dry_run_passes_every_step_that_needs_no_card(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "GPU_DRY": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    told = json.loads((tmp_path / "gpu-report.json").read_text())
    passed = [case["name"] for case in told["cases"] if case["result"] == "PASS"]
    assert len(passed) == 5
