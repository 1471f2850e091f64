"""Base and adapter as one model in 16 bits, in safetensors shards that any program loads."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remote_trainer.export.tokenizer_files import write_tokenizer

MAX_SHARD = "4GB"
SEED = 0
CONFIG = "config.json"
# How the base's weights were stored and loaded, which the merged ones are not.
_NOT_KEPT = ("torch_dtype", "dtype", "quantization_config", "_name_or_path", "transformers_version")
_KEPT, _DROPPED = -(1 << 16), 1 << 16  # the bits of a float32 that bfloat16 has, and the others


def merge(base: Path, adapter: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Write the merged model of two folders into ``target``, which must exist.

    The sum is made in float32 and rounded once, to ``dtype`` (None: `merged_dtype` of the base), to
    bfloat16 by chance (see `rounded`). Raises ValueError if a weight is not finite.
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
    if dtype == torch.bfloat16:
        generator = torch.Generator().manual_seed(SEED)
        for weight in model.parameters():
            weight.data = rounded(weight.data.float(), generator)
    model.to(dtype).save_pretrained(target, safe_serialization=True, max_shard_size=MAX_SHARD)
    _keep_settings(base, target)
    write_tokenizer(tokenizer_from, base, target)


def _keep_settings(base: Path, target: Path) -> None:
    """Add what the base's config.json says and transformers no longer writes.

    Other programs still ask for it: llama.cpp for GPT-2's n_ctx and GPT-NeoX's rotary_pct.
    """
    old, new = (json.loads((f / CONFIG).read_text(encoding="utf-8")) for f in (base, target))
    lost = {key: value for key, value in old.items() if key not in new and key not in _NOT_KEPT}
    if lost:
        (target / CONFIG).write_text(json.dumps({**new, **lost}, indent=2), encoding="utf-8")


def rounded(weight: Tensor, generator: torch.Generator) -> Tensor:
    """A finite float32 tensor in bfloat16: each value up or down, by chance, so that means hold.

    Training moves most weights by less than half a step of bfloat16. Rounded to the nearest value
    they fall back to the base's, all of them, and with them what was learnt; rounded by chance a
    share of them moves a whole step (Gupta et al., arXiv 1502.02551). Values that bfloat16 holds
    stay what they are.
    """
    chance = torch.randint(0, _DROPPED, weight.shape, generator=generator, dtype=torch.int32)
    bits = weight.contiguous().view(torch.int32) + chance.to(weight.device)
    return (bits & _KEPT).view(torch.float32).to(torch.bfloat16)


def merged_dtype(base: Path) -> torch.dtype:
    """float16 for a base that is stored so, else bfloat16."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    stored = config.get("dtype", config.get("torch_dtype"))
    return torch.float16 if stored == "float16" else torch.bfloat16
