"""A base model's dropout: off in training wherever it is kept, and what is done while it is on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_pipeline import cache, data_files
from tiny_models import make_family

from remote_trainer.config import parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import UserInputError
from remote_trainer.models.dropout import drops_out, switch_off
from remote_trainer.pipeline.check import check_config
from remote_trainer.pipeline.train import run
from remote_trainer.records import AdapterSettings, LoadSettings
from remote_trainer.run_dir import RunDir, read_jsonl

__all__ = ["cache", "data_files"]  # fixtures

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])
DROPPING = ["gpt2", "opt", "llama that drops"]


@torch.no_grad()
def moves(model: Any) -> bool:
    """Whether training mode answers otherwise than evaluation mode, or than itself."""
    expected = model.eval()(IDS).logits
    return not all(torch.equal(model.train()(IDS).logits, expected) for _ in range(4))


@pytest.mark.parametrize("family", DROPPING)
def test_nothing_of_the_base_is_dropped_and_the_adapter_keeps_its_own(
    family: str, tmp_path: Path
) -> None:
    folder = make_family(family, tmp_path)
    on = TransformersBackend.load(folder, LoadSettings(disable_dropout=False))
    assert drops_out(on.model)
    assert moves(on.model)
    off = TransformersBackend.load(folder, LoadSettings())
    assert not drops_out(off.model)
    assert not moves(off.model)
    targets = ("c_attn",) if family == "gpt2" else ("q_proj",)
    off.add_adapter(AdapterSettings(4, 8, 0.5, targets, seed=0))
    assert drops_out(off.model)
    with torch.no_grad():
        next(p for n, p in off.model.named_parameters() if "lora_B" in n).normal_()
    assert moves(off.model)


def test_shares_in_the_config_alone_are_switched_off() -> None:
    class Config:
        attention_dropout = 0.1

        def __init__(self) -> None:
            self.hidden_dropout, self.classifier, self.use_dropout = 0.2, 0.3, True

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.drop, self.lora_dropout_share = Config(), torch.nn.Dropout(0.4), 0.5

    layer = Layer()
    switch_off(layer)
    assert (layer.config.hidden_dropout, layer.drop.p) == (0.0, 0.0)
    assert (layer.config.classifier, layer.config.use_dropout) == (0.3, True)
    assert layer.lora_dropout_share == 0.5


def settings_for(model: Path, files: Any, output: Path, **training: Any) -> str:
    return json.dumps(
        {
            "model": {"name": str(model)},
            "lora": {"r": 4, "alpha": 8},
            "data": {"train": str(files[0]), "eval": "none"},
            "reward": {"type": "inverse_loss", "truncated": "score"},
            "training": {
                "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": 2,
                "max_prompt_length": 40, "max_completion_length": 6, "max_steps": 2,
                "group_filter": {"min_std": 0}, **training,
            },
            "guard": {"action": "off"},
            "output_dir": str(output),
        }
    )  # fmt: skip


@pytest.mark.parametrize("family", DROPPING)
def test_the_first_update_begins_at_no_distance_from_the_reference(
    family: str, data_files: Any, cache: Path, tmp_path: Path
) -> None:
    text = settings_for(make_family(family, tmp_path / "m"), data_files, tmp_path / "run")
    run(parse_config(text, "c"), text)
    lines = read_jsonl(RunDir(tmp_path / "run").metrics)
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-7)
    assert lines[1]["kl"] > 1e-7


def test_with_dropout_on_no_prompt_is_shared_in_training_and_it_trains(
    data_files: Any, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = make_family("llama that drops", tmp_path / "m")
    text = settings_for(model, data_files, tmp_path / "run", disable_dropout=False)
    run(parse_config(text, "c"), text)
    folder = RunDir(tmp_path / "run")
    assert len(read_jsonl(folder.metrics)) == 2
    assert read_jsonl(folder.metrics)[0]["kl"] > 1e-5
    engine = json.loads(folder.environment.read_text())["engine"]
    ways = engine["ways"]
    assert "packed rows, training: " in engine["fast_path"]
    assert "attention with dropout cannot share a prefix" in ways["packed rows, training"]
    assert ways["packed rows, scoring"] == "on"
    assert "every completion costs its prompt again, training" in caplog.text


def test_trls_own_key_is_not_another_way_to_say_it(llama_folder: Path, data_files: Any) -> None:
    text = settings_for(llama_folder, data_files, Path("x"), trl={"disable_dropout": True})
    with pytest.raises(UserInputError, match=r"trl\.disable_dropout: has a key of its own"):
        check_config(parse_config(text, "c"))
