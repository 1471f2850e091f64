"""Does the supervised reward teach? A real run of the shipped config on the built-in model."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from remote_trainer.config import load_config
from remote_trainer.pipeline.train import run
from remote_trainer.run_dir import RunDir, read_jsonl

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_forty_updates_raise_the_reward_by_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kind of question, so that updates can be compared: kinds differ more than updates do."""
    monkeypatch.chdir(ROOT)
    capitals = [
        line
        for line in Path("data/train_supervised.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "capital"
    ]
    (tmp_path / "capitals.jsonl").write_text("\n".join(capitals) + "\n")
    overrides = [
        f"data.train={tmp_path}/capitals.jsonl",
        "data.eval=none",
        "training.max_steps=40",
        f"output_dir={tmp_path}/run",
    ]
    config = load_config("configs/supervised.yaml", overrides)
    assert config.training.completions_per_update == 16
    run(config, "")
    rewards = [
        line["rewards"]["supervised"] for line in read_jsonl(RunDir(tmp_path / "run").metrics)
    ]
    assert len(rewards) == 40
    start, end = fmean(rewards[:5]), fmean(rewards[-5:])
    assert end >= 1.5 * start, (
        f"mean likelihood {start:.3f} in the first five updates, {end:.3f} last"
    )
