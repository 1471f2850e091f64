"""The forecast on the built-in model, against updates that were really done."""

from pathlib import Path

import pytest

from remote_trainer.config import load_config
from remote_trainer.forecast import first_samples, first_updates
from remote_trainer.forecast.growth import fit, movement
from remote_trainer.forecast.probe import probe

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.long
def test_three_updates_say_how_far_eight_will_move(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Within a factor of 2.5, for a single small run; docs/forecast.md has whole ones."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(first_samples, "ROWS", 8)
    monkeypatch.setattr(first_samples, "SAMPLES", 4)
    monkeypatch.setattr(first_updates, "UPDATES", 8)
    short = ["max_completion_length=12", "num_generations=4"]
    sets = [*(f"training.{each}" for each in short), f"output_dir={tmp_path / 'run'}"]
    found = probe(load_config(Path("configs/unsupervised.yaml"), sets))
    done = found.divergence.measured
    assert len(done) >= 6  # others had no group with signal
    predicted = fit(done[:3]).after(movement([1.0] * len(done)))
    assert 1 / 2.5 < predicted / done[-1] < 2.5, done
    # The training rows have no references; those of the evaluation file have.
    assert found.right_answers is not None
    assert found.right_answers.taken_from == "data.eval"
    assert found.cost.peak_memory_mb > 500  # the weights alone
