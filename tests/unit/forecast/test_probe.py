"""A whole probe on the tiny model: what it measures, and that no run can notice it."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.cli.check import checked
from remote_trainer.config import RunConfig, parse_config
from remote_trainer.errors import UserInputError
from remote_trainer.forecast.figures import Divergence, Rewards
from remote_trainer.forecast.first_updates import (
    divergence,
    probe_config,
    probed_updates,
    rows_needed,
)
from remote_trainer.forecast.growth import fit, movement
from remote_trainer.forecast.probe import divergence_of, probe, some_of_rates
from remote_trainer.pipeline.train import run
from remote_trainer.run_dir import RunDir, read_jsonl

TIMES = {"seconds_generate", "seconds_score", "seconds_update", "seconds_step", "seconds_probe"}
VARIES = TIMES | {"tokens_per_second", "peak_memory_mb"}


@pytest.fixture
def settings(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """24 rows for training and 4 held out; temporary files in a folder of their own."""
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    lines = [json.dumps({"prompt": f"What is {i}?", "answer": f"{2 * i}"}) for i in range(28)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:24]))
    (tmp_path / "eval.jsonl").write_text("\n".join(lines[24:]))
    return {
        "model": {"name": str(llama_folder), "max_seq_length": 256},
        "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
        "data": {"train": str(tmp_path / "train.jsonl"), "eval": str(tmp_path / "eval.jsonl")},
        "reward": {"type": "inverse_loss", "truncated": "score"},
        "training": {
            "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": 2,
            "max_prompt_length": 64, "max_completion_length": 6, "max_steps": 3, "save_steps": 1,
            "group_filter": {"min_std": 0},
        },
        "evaluation": {"samples": 2},
        "output_dir": str(tmp_path / "run"),
    }  # fmt: skip


def config_of(settings: dict[str, Any]) -> RunConfig:
    return parse_config(json.dumps(settings), "c")


def test_a_probe_leaves_nothing_and_changes_no_run(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    text, folder = json.dumps(settings), RunDir(settings["output_dir"])
    run(config_of(settings), text)
    alone = read_jsonl(folder.metrics)
    folder.set_aside()
    found = probe(config_of(settings))
    assert not folder.root.exists()
    assert list((tmp_path / "temporary").iterdir()) == []
    run(config_of(settings), text)
    for before, after in zip(alone, read_jsonl(folder.metrics), strict=True):
        assert {k: v for k, v in before.items() if k not in VARIES} == {
            k: v for k, v in after.items() if k not in VARIES
        }
    assert (found.rows, found.samples, found.missing) == (16, 8, ())
    assert found.right_answers is not None
    assert found.right_answers.rows == 16
    assert len(found.divergence.measured) == 3
    assert 0 < found.divergence.measured[0] < found.divergence.measured[2]
    assert found.divergence.updates == 3
    assert 1 <= found.completions.tokens_mean <= 6
    assert found.cost.seconds_updates == pytest.approx(3 * found.cost.seconds_per_update)
    assert found.cost.seconds_evaluation is not None


def test_json_holds_what_the_text_says(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["data"]["eval"] = "none"
    settings["training"]["learning_rate"] = 1e-7
    rows = [json.dumps({"prompt": f"What is {i}?"}) for i in range(24)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(settings))
    text, code = checked(file, [], probed=True, as_json=True)
    forecast = json.loads(text)["forecast"]
    assert code == 0
    assert forecast["probe"]["right_answers"] is None
    assert forecast["probe"]["cost"]["seconds_evaluation"] is None
    assert forecast["probe"]["missing"] == [
        "share of right answers: no row has a reference answer in 'answer'",
        "time of evaluations: no rows are held out (data.eval)",
    ]
    assert forecast["risks"][0]["name"] == "will_not_move"
    text, code = checked(file, [], probed=True, as_json=False)
    assert code == 0
    assert "probe (16 rows, 8 samples each):" in text
    assert "  missing: time of evaluations" in text
    assert "1. the run will not move the model: 3 updates" in text


def test_check_alone_says_what_needs_no_model(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["training"]["beta"] = 0.0
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(settings))
    text, code = checked(file, [], probed=False, as_json=True)
    found = json.loads(text)
    assert (code, found["forecast"]["probe"]) == (0, None)
    assert [risk["name"] for risk in found["forecast"]["risks"]] == ["no_kl_term", "few_rows"]
    # 3 updates of 2 prompts with 4 completions of at most 6 tokens.
    assert found["batches"]["most_completion_tokens"] == 144


def test_its_modules_need_no_package_for_training() -> None:
    """So that what is missing is a problem with advice, not a traceback."""
    code = "import sys, remote_trainer.forecast.probe as p; print({*sys.modules} & {*p.TO_TRAIN})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_problems_come_before_the_model(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["data"]["train"] = str(tmp_path / "none.jsonl")
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(settings))
    with pytest.raises(UserInputError, match=r"none\.jsonl: no such file"):
        checked(file, [], probed=True, as_json=False)
    text, code = checked(file, [], probed=True, as_json=True)
    assert (code, json.loads(text)["ok"]) == (2, False)


@pytest.mark.parametrize(("iterations", "updates", "rows"), [(1, 3, 6), (2, 4, 4), (4, 8, 4)])
def test_whole_batches_are_probed(iterations: int, updates: int, rows: int) -> None:
    training = {
        "num_iterations": iterations, "per_device_train_batch_size": 2, "save_steps": 4,
        "gradient_accumulation_steps": 1, "warmup_steps": 5, "lr_scheduler_type": "linear",
        "trl": {"warmup_ratio": 0.5, "epsilon": 0.1},
    }  # fmt: skip
    config = config_of({"training": training})
    assert (probed_updates(config), rows_needed(config)) == (updates, rows)
    short = probe_config(config).training
    assert (short.max_steps, short.warmup_steps, short.lr_scheduler_type) == (
        updates, 0, "constant",
    )  # fmt: skip
    assert short.trl == {"epsilon": 0.1, "save_strategy": "no"}


def test_divergence_by_hand() -> None:
    """Twice as likely: 2 - 1 - log 2; half as likely: 1/2 - 1 + log 2; unchanged: 0."""
    two = math.log(2)
    before, after = [(-1.0, -2.0), (-3.0,)], [(-1.0 + two, -2.0 - two), (-3.0,)]
    assert divergence(before, after) == pytest.approx((1 - two + two - 0.5) / 3)
    assert divergence(before, before) == 0.0
    assert math.isfinite(divergence([(-1000.0,)], [(0.0,)]))


def test_divergence_is_the_kl() -> None:
    """Every id of a small vocabulary, each as often as it is drawn: the sum over the vocabulary."""
    draw = torch.Generator().manual_seed(0)
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    q = torch.softmax(torch.randn(3, generator=draw, dtype=torch.float64), 0)
    ids = [0, 0, 1, 2]
    exact = float((p * (p / q).log()).sum())
    found = divergence([[math.log(p[i]) for i in ids]], [[math.log(q[i]) for i in ids]])
    assert found == pytest.approx(exact)


def test_updates_without_signal_are_left_out() -> None:
    """Of two groups per update each lacks spread half of the time: 3 of 4 updates count."""
    config = config_of({"training": {"gradient_accumulation_steps": 2, "max_steps": 40}})
    rewards = Rewards(0.0, 0.1, groups_without_spread=0.5)
    found = divergence_of(config, [1e-4], rewards, updates=40)
    growth = fit([1e-4])
    assert found == Divergence(
        (1e-4,),
        0.5,
        after_10=growth.after(movement([1.0] * 7)),
        updates=40,
        after_all=growth.after(movement([1.0] * 30)),
    )
    assert list(some_of_rates([1, 2, 3, 4, 5, 6], 0.5)) == [2, 4, 6]
    assert list(some_of_rates([1, 2], 0.0)) == []
