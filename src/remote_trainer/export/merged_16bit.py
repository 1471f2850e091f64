"""Base and adapter as one model in 16 bits, in safetensors shards that any program loads."""

import json
from pathlib import Path
from typing import Any

import torch

MAX_SHARD = "4GB"


def merge(base: Path, adapter: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Write the merged model of two folders into ``target``, which must exist.

    The sum is made in float32 and rounded once, to ``dtype`` (None: `merged_dtype` of the base).
    Raises ValueError if a weight is not finite.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    save(merged, base, adapter, target, dtype or merged_dtype(base))


def save(model: Any, base: Path, tokenizer_from: Path, target: Path, dtype: torch.dtype) -> None:
    """Weights, configs, tokenizer and chat template, as transformers and vLLM read them."""
    from transformers import AutoTokenizer

    model.to(dtype).save_pretrained(target, safe_serialization=True, max_shard_size=MAX_SHARD)
    AutoTokenizer.from_pretrained(tokenizer_from, local_files_only=True).save_pretrained(target)


def merged_dtype(base: Path) -> torch.dtype:
    """float16 for a base that is stored so, else bfloat16."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    stored = config.get("dtype", config.get("torch_dtype"))
    return torch.float16 if stored == "float16" else torch.bfloat16
