"""The built-in model in every format, read again by transformers and by llama.cpp."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.config import parse_config
from remote_trainer.data.encode import encode_rows
from remote_trainer.data.load import load_eval_rows
from remote_trainer.engine import resolve_model
from remote_trainer.engines.chat_model import GgufChatModel
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.export.proof import Expected
from remote_trainer.export.source import Source
from remote_trainer.models.builtin_model import BUILTIN_NAME
from remote_trainer.pipeline.export import expected_of, export_format
from remote_trainer.records import AdapterSettings, LoadSettings, Message

ROOT = Path(__file__).parents[2]
LORA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Expected]:
    """A random adapter that moves answers by more than half a nat a token, as training would."""
    base, adapter = resolve_model(BUILTIN_NAME), tmp_path_factory.mktemp("adapter")
    backend = TransformersBackend.load(base, LoadSettings())
    backend.add_adapter(AdapterSettings(16, 16, 0.0, LORA, seed=0))
    torch.manual_seed(1)
    for name, parameter in backend.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.15)
    backend.save_adapter(adapter)
    backend.prompt_tokenizer.tokenizer.save_pretrained(adapter)
    config = parse_config(json.dumps({"data": {"train": "-"}}), "c")
    rows, _ = load_eval_rows(ROOT / "data/eval_supervised.jsonl", config)
    encoded, _ = encode_rows(rows, backend.prompt_tokenizer, config, [])
    return Source(base, adapter), expected_of(backend, encoded, config)


@pytest.mark.parametrize(
    ("form", "gguf_type"),
    [
        ("lora", ""),
        ("merged_16bit", ""),
        ("merged_4bit", ""),
        pytest.param("gguf", "f16", marks=pytest.mark.long),
        ("gguf", "q8_0"),
        pytest.param("gguf", "q4_k_m", marks=pytest.mark.long),
    ],
)
def test_every_format_is_the_trained_model(
    form: str, gguf_type: str, trained: Any, tmp_path: Path
) -> None:
    source, expected = trained
    proof = export_format(
        form, Source(source.base, source.adapter, gguf_type), tmp_path / form, expected
    )
    kept = ("slope", "distance_mean", "distance_limit", "format_noise_rms", "likeliest_agree")
    print(form, gguf_type, {key: proof.get(key) for key in (*kept, "policy_base_gap_rms")})
    assert proof["verdict"] == "PASS", proof.get("reason", proof)
    assert proof["policy_base_gap_rms"] > 0.5
    if gguf_type == "q8_0":
        speaker = GgufChatModel(tmp_path / "gguf" / "model-q8_0.gguf", 256)
        said = "".join(speaker.reply([Message(role="user", content="What is 2 + 3?")], 0.0))
        assert said.strip()
