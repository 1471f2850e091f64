"""Training on a 4-bit base: the adapter learns in float32, goes on exactly, and can be exported."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_export import write_adapter
from test_trainer import SCORED, TARGETS, adapter_of, comparable, config_with, rows_for

from remote_trainer.config import parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.pipeline import train as pipeline
from remote_trainer.records import AdapterSettings, LoadSettings
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer.loop import train


def on_4_bits(folder: Path) -> TransformersBackend:
    """Both matrices of each adapter hold numbers of the size that training gives them."""
    backend = TransformersBackend.load(folder, LoadSettings(load_in_4bit=True))
    backend.add_adapter(AdapterSettings(4, 8, 0.0, TARGETS, seed=0))
    torch.manual_seed(1)
    for name, parameter in backend.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return backend


def trained(
    model: Path, folder: Path, resume_from: Path | None = None, **training: Any
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The adapter before and after."""
    backend = on_4_bits(model)
    assert backend.in_4bit
    before, config = adapter_of(backend), config_with(**training)
    reward = RewardFunction(backend, config.reward, config.training.max_completion_length)
    train(backend, reward, rows_for(backend), config, RunDir(folder), resume_from)
    return before, adapter_of(backend)


def test_an_update_of_5e_6_changes_an_adapter_on_4_bits(wide_folder: Path, tmp_path: Path) -> None:
    before, after = trained(wide_folder, tmp_path, max_steps=1, learning_rate=5e-6)
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    for name, weight in after.items():
        # AdamW's first update moves every weight by the learning rate.
        moved = (weight - before[name]).abs()
        assert moved.median().item() == pytest.approx(5e-6, rel=0.02)
        assert moved.max() < 5.1e-6


@pytest.mark.slow
def test_a_run_on_4_bits_goes_on_exactly(wide_folder: Path, tmp_path: Path) -> None:
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    _, wanted = trained(wide_folder, whole.root, max_steps=3)
    trained(wide_folder, parts.root, max_steps=2)
    saved = load_file(parts.checkpoint(2) / "adapter.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}
    _, found = trained(wide_folder, parts.root, parts.checkpoint(2), max_steps=3)
    assert comparable(parts.root) == comparable(whole.root)
    assert all(torch.equal(weight, wanted[name]) for name, weight in found.items())


@pytest.mark.slow
def test_exports_of_a_run_on_4_bits_are_proven(
    wide_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains an adapter further that moves answers by more than 4 bits distort them."""
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))
    given, data, out = tmp_path / "given", tmp_path / "train.jsonl", tmp_path / "run"
    write_adapter(wide_folder, given, 0.3)
    lines = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(16)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = {
        "model": {"name": str(wide_folder), "adapter": str(given), "load_in_4bit": True},
        "data": {"train": str(data), "eval": "none"},
        "reward": SCORED,
        "training": {
            "max_steps": 2, "num_generations": 4, "max_prompt_length": 64,
            "max_completion_length": 6, "group_filter": {"min_std": 0},
        },
        "evaluation": {"max_completion_length": 8},
        "export": {"formats": ["lora", "merged_16bit", "merged_4bit"]},
        "output_dir": str(out),
    }  # fmt: skip
    text = json.dumps(settings)
    pipeline.run(parse_config(text, "c"), text)
    proofs = {
        form: json.loads((out / form / "proof.json").read_text())
        for form in ("adapter", "merged_16bit", "merged_4bit")
    }
    assert {form: proof["verdict"] for form, proof in proofs.items()} == dict.fromkeys(
        proofs, "PASS"
    )
    adapter = load_file(out / "adapter" / "adapter_model.safetensors")
    assert {weight.dtype for weight in adapter.values()} == {torch.float32}
