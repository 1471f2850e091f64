"""Training on a 4-bit base on the CPU: gradients and merges against the de-quantised truth."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import rows_for
from transformers import AutoModelForCausalLM

from remote_trainer.config import parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.export.dequantized import dequantize
from remote_trainer.export.source import Source
from remote_trainer.pipeline.export import add_gguf_adapter, expected_of, export_format
from remote_trainer.records import AdapterSettings, LoadSettings, Sampling

LORA = AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj", "down_proj"), seed=0)


def adapted(folder: Path, in_4bit: bool) -> TransformersBackend:
    backend = TransformersBackend.load(folder, LoadSettings(load_in_4bit=in_4bit))
    backend.add_adapter(LORA)
    torch.manual_seed(1)
    for name, parameter in backend.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return backend


def gradients(backend: TransformersBackend) -> torch.Tensor:
    """Of the adapter, for the mean log-prob of some ids."""
    model = backend.model.train()
    model.zero_grad()
    ids = torch.arange(10, 40)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    parts = [p.grad.flatten() for n, p in model.named_parameters() if "lora" in n]
    return torch.cat(parts)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.fixture(scope="module")
def truth(wide_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dequantized")
    dequantize(wide_folder, folder)
    return folder


def packed_weights(model: Any) -> list[str]:
    """Names of 4-bit weights in bitsandbytes' packed layout, which no gradient passes."""
    return [
        name
        for name, weight in model.named_parameters()
        if getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False)
    ]


def test_gradients_are_the_dequantised_ones_before_and_after_generating(
    wide_folder: Path, truth: Path
) -> None:
    backend = adapted(wide_folder, in_4bit=True)
    assert backend.in_4bit
    wanted = gradients(adapted(truth, in_4bit=False))
    assert cosine(gradients(backend), wanted) >= 0.999
    prompts = [row.prompt_ids for row in rows_for(backend)]
    backend.model.eval()
    backend.generate(prompts, Sampling(4, temperature=0))
    assert packed_weights(backend.model) == []
    assert cosine(gradients(backend), wanted) >= 0.999


def test_four_bits_are_not_the_original_weights(wide_folder: Path, truth: Path) -> None:
    """Else the tests here would pass without any quantisation."""
    original, dequantised = (
        AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).model.layers[0].mlp
        for f in (wide_folder, truth)
    )
    gap = (original.up_proj.weight - dequantised.up_proj.weight).abs().mean()
    assert 0.02 < gap / original.up_proj.weight.abs().mean() < 0.2


@pytest.mark.parametrize("form", ["lora", "lora_gguf", "merged_16bit", "merged_4bit"])
def test_exports_of_a_model_trained_on_four_bits(
    form: str, wide_folder: Path, tmp_path: Path, toy_gguf: Path
) -> None:
    backend = adapted(wide_folder, in_4bit=True)
    backend.model.eval()
    adapter = tmp_path / "adapter"
    backend.save_adapter(adapter)
    backend.prompt_tokenizer.tokenizer.save_pretrained(adapter)
    config: Any = parse_config(
        json.dumps({"data": {"train": "-"}, "evaluation": {"max_completion_length": 8}}), "c"
    )
    expected = expected_of(backend, rows_for(backend, 16), config)
    source = Source(wide_folder, adapter, "f16", trained_in_4bit=True)
    if form == "lora_gguf":
        proof = add_gguf_adapter(source, adapter, expected)
    else:
        proof = export_format(form, source, tmp_path / form, expected)
    assert proof["verdict"] == "PASS", proof
    assert proof["merge_base"] == "dequantized"
    if form == "merged_16bit":
        other = Source(wide_folder, adapter, trained_in_4bit=True, merge_base="original")
        original = export_format(form, other, tmp_path / "original", expected)
        assert original["distance_mean"] > 3 * proof["distance_mean"]
