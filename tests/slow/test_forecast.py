"""The forecast on the built-in model, against updates that were really done."""

from pathlib import Path

import pytest

from remote_trainer.config import load_config
from remote_trainer.forecast import first_updates
from remote_trainer.forecast.probe import probe
from remote_trainer.forecast.risks import Known, risks_of

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_three_updates_say_how_far_ten_others_move(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Other rows, another adapter and other samples: within a factor of 3 for single seeds."""
    monkeypatch.chdir(ROOT)
    short = ["max_completion_length=8", "num_generations=4", "max_steps=10"]
    sets = [*(f"training.{each}" for each in short), f"output_dir={tmp_path / 'run'}"]
    predicted = probe(load_config(Path("configs/supervised.yaml"), sets))
    monkeypatch.setattr(first_updates, "UPDATES", 10)
    other = load_config(Path("configs/supervised.yaml"), [*sets, "training.seed=1"])
    done = probe(other).divergence.measured
    assert len(done) >= 9  # an update may have no group with signal
    assert 1 / 3 < predicted.divergence.after_10 / done[-1] < 3
    slow = load_config(Path("configs/supervised.yaml"), [*sets, "training.learning_rate=5.0e-6"])
    names = [risk.name for risk in risks_of(Known(slow, 500, probe=probe(slow)))]
    assert names[0] == "will_not_move"
