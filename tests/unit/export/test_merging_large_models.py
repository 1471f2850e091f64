"""Merging weight by weight: the same bytes as all at once, in the memory of a layer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from test_export import write_adapter
from tiny_models import make_family
from transformers import AutoModelForCausalLM

from remote_trainer.export import dequantized, merged_16bit
from remote_trainer.export.tokenizer_files import write_tokenizer
from remote_trainer.models.quantization import keep_unpacked, nf4


def merge_at_once(base: Path, adapter: Path, target: Path, dtype: torch.dtype | None) -> None:
    """The whole model in float32, merged by PEFT, then rounded."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    goal = dtype or merged_16bit.merged_dtype(base)
    if goal == torch.bfloat16:
        generator = torch.Generator().manual_seed(merged_16bit.SEED)
        for weight in merged.parameters():
            weight.data = merged_16bit.rounded(weight.data.float(), generator)
    merged_16bit.save(merged, base, adapter, target, goal)


def store(base: Path, dtypes: dict[str, torch.dtype]) -> None:
    """Store the weights of a model in other dtypes, by a part of their names."""
    file, config = base / "model.safetensors", base / "config.json"
    weights = load_file(file)
    for name in weights:
        wanted = next((dtype for part, dtype in dtypes.items() if part in name), torch.float32)
        weights[name] = weights[name].to(wanted)
    save_file(weights, file, metadata={"format": "pt"})
    named = str(next(iter(dtypes.values()))).removeprefix("torch.")
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": named}))


BFLOAT16, FLOAT16 = torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("family", "dtypes"),
    [
        ("llama", {}),
        ("llama", {"": BFLOAT16}),
        ("llama", {"": FLOAT16}),
        ("llama", {"proj": BFLOAT16}),  # the others in float32
        ("llama, tied", {"": BFLOAT16}),
        ("gpt2", {"": BFLOAT16}),  # weights the other way round
        ("qwen3_moe", {"": BFLOAT16}),  # experts apart in the file, as one weight in memory
        ("gemma2", {"": BFLOAT16}),
    ],
)
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_weight_by_weight_gives_the_same_bytes(
    family: str,
    dtypes: dict[str, torch.dtype],
    dtype: torch.dtype | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(merged_16bit, "MAX_SHARD", "20KB")
    monkeypatch.setattr(merged_16bit, "_PART", 1000)
    base, adapter = make_family(family, tmp_path / "base"), tmp_path / "adapter"
    targets = ("c_attn", "c_proj") if family == "gpt2" else ("q_proj", "down_proj", "lm_head")
    if dtypes:
        store(base, dtypes)
    write_adapter(base, adapter, 0.3, targets)
    for name, merge in {"once": merge_at_once, "parts": merged_16bit.merge}.items():
        (tmp_path / name).mkdir()
        merge(base, adapter, tmp_path / name, dtype)
    once, parts = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("once", "parts")
    )
    assert len([name for name in once if name.endswith(".safetensors")]) > 2
    assert parts.keys() == once.keys()
    assert [name for name in once if parts[name] != once[name]] == []
    assert not list(tmp_path.glob(".*"))


def dequantize_at_once(base: Path, target: Path) -> None:
    """transformers' own way."""
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=nf4(torch.float32), dtype=torch.float32
    )
    keep_unpacked(model)
    model.dequantize(dtype=torch.float32).save_pretrained(target)
    write_tokenizer(base, base, target)


@pytest.mark.parametrize("bias", [True, False])
def test_dequantising_layer_by_layer_gives_the_same_bytes(bias: bool, tmp_path: Path) -> None:
    sizes = {"hidden_size": 128, "intermediate_size": 256, "attention_bias": bias}
    base = make_family("llama", tmp_path / "base", **sizes)
    dequantize_at_once(base, tmp_path / "once")
    dequantized.dequantize(base, tmp_path / "layers")
    once, layers = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}
        for name in ("once", "layers")
    )
    assert layers == once
    assert not list(tmp_path.glob(".*"))


MEASURED = """
import sys, threading, time
from pathlib import Path
import torch, transformers, peft, bitsandbytes
from peft import PeftModel
from transformers import AutoModelForCausalLM
from remote_trainer.export import dequantized, merged_16bit

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def watch():
    while True:
        peak[0] = max(peak[0], held())
        time.sleep(0.002)

step, base, adapter, target = sys.argv[1], *map(Path, sys.argv[2:])
torch.nn.functional.linear(torch.ones(512, 512), torch.ones(512, 512))
before = held()
peak = [before]
threading.Thread(target=watch, daemon=True).start()
if step == "dequantize":
    dequantized.dequantize(base, target)
elif step == "merge":
    merged_16bit.merge(base, adapter, target)
else:
    kept = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    time.sleep(0.1)
print(peak[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what a process holds of its own")
def test_a_merge_takes_the_memory_of_a_layer(tmp_path: Path) -> None:
    """Of its own: pages of files that are mapped are given back where others need them."""
    sizes = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 8}
    base, adapter = make_family("llama", tmp_path / "base", **sizes), tmp_path / "adapter"
    store(base, {"": BFLOAT16})
    write_adapter(base, adapter, 0.1, ("q_proj", "down_proj"))
    model = (base / "model.safetensors").stat().st_size

    def peak(step: str) -> float:
        """In sizes of the model in 16 bits."""
        (tmp_path / step).mkdir()
        command = [
            sys.executable,
            "-c",
            MEASURED,
            step,
            *map(str, (base, adapter, tmp_path / step)),
        ]
        # glibc else keeps blocks of this size that were freed, which is no need of memory.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "100000"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return int(done.stdout.splitlines()[-1]) / model

    peaks = {step: peak(step) for step in ("load", "merge", "dequantize")}
    assert peaks["load"] > 1.9  # float32
    assert peaks["merge"] < 0.5
    assert peaks["dequantize"] < 0.7
