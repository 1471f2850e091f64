"""What check says of memory and disk, by a model's files alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import command
from tiny_models import make_family

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.export_formats import EXPORT_FORMATS
from remote_trainer.models.layer_names import SEVEN, resolve
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.pipeline.resources import engine_on_gpu
from remote_trainer.planning.memory import ADAPTER_BYTES, CONTEXT_BYTES
from remote_trainer.planning.resources import (
    adapter_parameters,
    cpu_memory,
    disk_by_export,
    gpu_memory,
    shape_of,
)


def config_of(**sections: Any) -> RunConfig:
    return parse_config(json.dumps({"data": {"train": "-"}, **sections}), "c")


@pytest.mark.parametrize("family", ["llama", "llama, tied", "mistral"])
def test_sizes_are_those_of_the_weights(family: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    facts = ModelFacts(make_family(family, tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    shape = shape_of(facts)
    assert shape is not None
    assert shape.parameters == sum(weight.numel() for weight in weights.values())
    targets = resolve("auto", facts.layers)
    assert adapter_parameters(facts, targets, 4) == shape.adapter_parameters(4)
    linear = sum(w.numel() for name, w in weights.items() if name.split(".")[-2] in SEVEN)
    assert cpu_memory(facts) == {"weights": 4 * shape.parameters, "ordered_copies": 8 * linear}


def test_parts_add_up_and_follow_the_config(tmp_path: Path) -> None:
    facts = ModelFacts(make_family("llama", tmp_path))
    found = {}
    for r in (4, 8):
        config = config_of(lora={"r": r, "target_modules": ["q_proj", "o_proj"]})
        targets = resolve(config.lora.requested, facts.layers)
        memory = gpu_memory(config, facts, targets, in_4bit=True, engine="transformers")
        assert memory is not None
        assert memory["adapter"] == adapter_parameters(facts, targets, r) * ADAPTER_BYTES
        turns = max(memory["sampling"], memory["update"])
        parts = memory["weights"] + memory["adapter"] + turns + CONTEXT_BYTES
        assert memory["total"] == pytest.approx(parts, abs=3)
        found[r] = memory
    assert found[8]["adapter"] == 2 * found[4]["adapter"]
    config = config_of()
    targets = resolve("auto", facts.layers)
    vllm = gpu_memory(config, facts, targets, in_4bit=True, engine="vllm")
    assert vllm is not None
    assert (vllm["in_4bit"], vllm["sampling"] > found[4]["sampling"]) == (False, True)


def test_models_of_another_kind_get_no_number_for_a_gpu(tmp_path: Path) -> None:
    facts = ModelFacts(make_family("gpt2", tmp_path))
    targets = resolve("auto", facts.layers)
    assert gpu_memory(config_of(), facts, targets, in_4bit=False, engine="vllm") is None
    assert adapter_parameters(facts, targets, 2) == 2 * 2 * (4 * 32 + 2 * 32 + 2 * 5 * 32)


def test_disk_is_what_an_export_needs_while_it_is_written(tmp_path: Path) -> None:
    facts = ModelFacts(make_family("llama", tmp_path))
    config = config_of(export={"formats": ["lora", "gguf"]})
    targets = resolve("auto", facts.layers)
    size = (tmp_path / "model.safetensors").stat().st_size
    adapter = 4 * adapter_parameters(facts, targets, 16)
    found = disk_by_export(config, facts, targets)
    assert found == {"lora": adapter, "gguf": EXPORT_FORMATS["gguf"].disk_factor * size + adapter}


@pytest.mark.parametrize(
    ("sections", "engine"),
    [
        ({"model": {"backend": "unsloth"}}, "unsloth"),
        ({"generation": {"engine": "vllm"}, "model": {"backend": "transformers"}}, "vllm"),
        (
            {"generation": {"engine": "vllm"}, "model": {"backend": "transformers"},
             "training": {"trl": {"vllm_mode": "server"}}},
            "transformers",
        ),
        ({"model": {"backend": "transformers"}}, "transformers"),
    ],
)  # fmt: skip
def test_the_engine_that_a_gpu_would_get(sections: dict[str, Any], engine: str) -> None:
    assert engine_on_gpu(config_of(**sections)) == engine


def test_check_shows_it_without_torch(tmp_path: Path) -> None:
    base = make_family("llama", tmp_path / "m")
    (tmp_path / "train.jsonl").write_text('{"prompt": "a b", "answer": "c"}\n' * 30)
    config = {
        "model": {"name": str(base)},
        "data": {"train": str(tmp_path / "train.jsonl"), "eval": "none"},
        "reward": {"type": "inverse_loss"},
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "c.json").write_text(json.dumps(config))
    done = command("check", tmp_path / "c.json", "--json")
    assert (done.returncode, done.stderr) == (0, "loaded:\n"), done.stdout
    result = json.loads(done.stdout)
    assert result["rows"] == {"train": 30, "eval": 0}
    assert result["resources"]["gpu"]["total"] > result["resources"]["gpu"]["weights"]
    text = command("check", tmp_path / "c.json").stdout
    assert "GPU memory (" in text
    assert "plus updates (estimated for GPUs only)" in text
    assert "disk space for exports, at most: lora " in text
