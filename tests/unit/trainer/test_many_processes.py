"""Two processes train what one trains with the same prompts per update."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from remote_trainer.run_dir import RunDir, read_jsonl

UPDATES = 4
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def write_config(folder: Path, model: Path, **training: Any) -> Path:
    """A config of four updates in float32, whose rows hold one prompt twice."""
    rows = [{"prompt": f"What is {i % 7} + {i % 7}?", "answer": f"{i}"} for i in range(8)]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": {"name": str(model), "dtype": "float32"},
        "lora": {"r": 4, "alpha": 8},
        "data": {"train": str(data), "eval": "none"},
        "reward": [
            {"type": "inverse_loss", "truncated": "score"},
            {"type": "answer_likelihood", "weight": 0.5},
        ],
        "training": {
            "num_generations": 4,
            "gradient_accumulation_steps": 4,
            "scale_rewards": "group",
            "max_completion_length": 6,
            "max_prompt_length": 60,
            "max_steps": UPDATES,
            "learning_rate": 1e-2,
            "save_steps": 2,
            "group_filter": {"min_std": 0.3},
            **training,
        },
        "generation": {"dtype": "float32"},
        "guard": {"action": "warn"},
        "output_dir": str(folder / "run"),
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    return path


def train(config: Path, *words: str, launch: list[str] | None = None) -> RunDir:
    """The run folder of `remote-trainer train`, in a process of one thread or in several."""
    command = [sys.executable, *(launch or []), "-m", "remote_trainer.cli", "train", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment["REMOTE_TRAINER_CACHE"] = str(config.parent / "cache")
    done = subprocess.run(
        [*command, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return RunDir(config.parent / "run")


def weights(folder: RunDir, part: str = "lora") -> torch.Tensor:
    """The weights of the result as one vector, in the order of their names."""
    tensors = load_file(folder.adapter / "adapter_model.safetensors")
    return torch.cat([tensors[n].flatten() for n in sorted(tensors) if part in n]).double()


def completions_of(folder: RunDir, step: int) -> list[dict[str, Any]]:
    return read_jsonl(folder.completions_file(step))


@pytest.mark.slow
@pytest.mark.parametrize("loss_type", ["dapo", pytest.param("grpo", marks=pytest.mark.long)])
def test_two_processes_train_what_one_trains(
    llama_folder: Path, tmp_path: Path, loss_type: str
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    kind = {"loss_type": loss_type}
    one = train(write_config(tmp_path / "one", llama_folder, **kind))
    halved = {**kind, "gradient_accumulation_steps": 2}
    two = train(write_config(tmp_path / "two", llama_folder, **halved), launch=LAUNCH)

    for step in range(1, UPDATES + 1):
        alone, split = completions_of(one, step), completions_of(two, step)
        assert len(alone) == 16
        assert [each["completion"] for each in split] == [each["completion"] for each in alone]
        assert [each["in_loss"] for each in split] == [each["in_loss"] for each in alone]
        rewards = [each["reward"] for each in alone]
        assert [each["reward"] for each in split] == pytest.approx(rewards, abs=1e-6)
    lines, expected = read_jsonl(two.metrics), read_jsonl(one.metrics)
    assert [line["step"] for line in lines] == list(range(1, UPDATES + 1))
    for key in ("reward", "reward_std", "kl", "entropy", "completion_tokens_mean", "sampler_gap"):
        found = [line[key] for line in lines]
        assert found == pytest.approx([line[key] for line in expected], abs=1e-4), key

    # B begins at 0, so all that it holds was learnt; A moves besides.
    difference = weights(two) - weights(one)
    assert difference.norm() / weights(one, "lora_B").norm() < 1e-3


@pytest.mark.slow
def test_a_run_of_two_processes_resumes_to_the_last_bit(llama_folder: Path, tmp_path: Path) -> None:
    """With dropout in the adapter, each process needs its own random stream back."""
    results = []
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
        config = write_config(tmp_path / name, llama_folder, gradient_accumulation_steps=1)
        dropout = ["--set", "lora.dropout=0.2"]
        if name == "resumed":
            train(config, *dropout, "--set", "training.max_steps=2", launch=LAUNCH)
            dropout.append("--allow-changed")
        results.append(weights(train(config, *dropout, launch=LAUNCH)))
    assert torch.equal(*results)
