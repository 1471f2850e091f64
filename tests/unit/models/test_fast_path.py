"""What is said of the fast path: of a model's files before a run, and of a run behind it."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import make_family

from remote_trainer.cpu.fused_layers import FUSED_KINDS
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.models.fast_path import FUSED_TYPES, fast_path, reasons_in_files
from remote_trainer.records import AdapterSettings, LoadSettings, Sampling, ScoreRequest

NAMES = {"gpt2": ("c_attn",), "bloom": ("query_key_value",)}


def run_of(folder: Path, family: str) -> str:
    """What a run of a few tokens tells of its fast path."""
    backend = TransformersBackend.load(folder, LoadSettings())
    names = NAMES.get(family, ("q_proj", "o_proj"))
    backend.add_adapter(AdapterSettings(4, 8, 0.0, names, seed=0))
    prompt = (1, 20, 30, 40)
    backend.generate([prompt] * 2, Sampling(4, seed=1))
    backend.score([ScoreRequest.of(prompt, (50, 51)), ScoreRequest.of(prompt, (60,))])
    told = backend.describe()["fast_path"]
    assert isinstance(told, str)
    return told


def test_types_in_files_are_those_of_the_fused_layers() -> None:
    assert set(FUSED_TYPES) == {kind.__module__.split(".")[-2] for kind in FUSED_KINDS}


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "bloom"])
def test_reasons_in_files_are_among_those_of_the_run(family: str, tmp_path: Path) -> None:
    folder = make_family(family, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    before = reasons_in_files(config, dtype="auto", in_4bit=False, remote_code=False)
    told = run_of(folder, family)
    assert (told == "on") is (before == {}) is (family == "llama")
    if family == "llama":
        return
    assert told.startswith("off in part, because ")
    assert ("sampling in float32: " in told) is ("fused layers" in before)
    if "packed rows" in before:
        assert f"packed rows, scoring: {before['packed rows']}" in told
    if family == "gpt2":
        assert "its layers (GPT2Block) are not of Llama's kind" in told


def test_settings_that_leave_the_fast_path() -> None:
    llama = {"model_type": "llama", "auto_map": {}}

    def told(dtype: str = "auto", in_4bit: bool = False) -> str:
        found = reasons_in_files(llama, dtype=dtype, in_4bit=in_4bit, remote_code=False)
        return fast_path(found)

    assert told() == told("bfloat16") == "on"
    assert told("float16") == (
        "off in part, because ordered weights: its weights are float16; fused layers: its "
        "weights are float16"
    )
    assert "ordered weights: its weights are in 4 bits" in told(in_4bit=True)
    code = {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "x.Y"}}
    own = reasons_in_files(code, dtype="auto", in_4bit=False, remote_code=True)
    assert (
        own["packed rows"] == "it runs custom code, which is checked only when the model is loaded"
    )


def test_weights_in_another_dtype_say_so(tmp_path: Path) -> None:
    backend = TransformersBackend.load(
        make_family("llama", tmp_path), LoadSettings(dtype="float16")
    )
    assert backend.model.dtype == torch.float16
    told = backend.describe()["fast_path"]
    assert told == "off in part, because ordered weights: its weights are float16"
