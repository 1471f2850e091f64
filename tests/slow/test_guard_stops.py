"""Settings that ruin the built-in model: the guard ends the run and gives back a sound one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from remote_trainer.errors import EXIT_GUARD
from remote_trainer.run_dir import RunDir

ROOT = Path(__file__).parents[2]
ORIGINAL = '[{"type": "supervised", "formula": "original", "scored_by": "policy"}]'

# On tiny models the gate has the same: tests/unit/trainer/test_guard_callback.py.
pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ("supervised", [f"reward={ORIGINAL}", "training.learning_rate=3e-4"]),
        (
            "unsupervised",
            ["reward.scored_by=policy", "training.beta=0", "training.learning_rate=1e-3"],
        ),
    ],
)
def test_a_ruinous_run_is_stopped_and_gives_back_a_sound_model(
    config: str, settings: list[str], tmp_path: Path
) -> None:
    settings = [*settings, "evaluation.rows=64", "evaluation.samples=1", f"output_dir={tmp_path}"]
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "remote_trainer.cli", "train", f"configs/{config}.yaml"]
    ended = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == EXIT_GUARD, ended.stderr
    run = RunDir(tmp_path)
    guard, judged = json.loads(run.guard.read_text()), json.loads(run.eval.read_text())
    assert guard["step"] <= 30
    assert guard["result_step"] < guard["step"]
    start, end = guard["probes"][0]["accuracy"], guard["probes"][-1]["accuracy"]
    assert start - end > 0.1  # it would have come out so
    assert judged["before"]["accuracy_greedy"] - judged["after"]["accuracy_greedy"] <= 0.1
