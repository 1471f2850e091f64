"""Base and adapter merged into one 16-bit model, in safetensors shards."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remote_trainer.export.tokenizer_files import write_tokenizer

MAX_SHARD = "4GB"
SEED = 0
CONFIG = "config.json"
# These describe the stored weights of the base, not the merged ones.
_NOT_KEPT = ("torch_dtype", "dtype", "quantization_config", "_name_or_path", "transformers_version")
_KEPT, _DROPPED = -(1 << 16), 1 << 16  # the bits of a float32 that bfloat16 keeps, and the others


def merge(base: Path, adapter: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Merge base and adapter into ``target``, which must exist.

    The sum is computed in float32 and rounded once, to ``dtype`` (None: `merged_dtype` of the
    base); to bfloat16 stochastically (see `rounded`). Raises ValueError for a non-finite weight.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    save(merged, base, adapter, target, dtype or merged_dtype(base))


def save(model: Any, base: Path, tokenizer_from: Path, target: Path, dtype: torch.dtype) -> None:
    """Write weights, configs, tokenizer and chat template for transformers and vLLM."""
    if dtype == torch.bfloat16:
        generator = torch.Generator().manual_seed(SEED)
        for weight in model.parameters():
            weight.data = rounded(weight.data.float(), generator)
    model.to(dtype).save_pretrained(target, safe_serialization=True, max_shard_size=MAX_SHARD)
    _keep_settings(base, target)
    write_tokenizer(tokenizer_from, base, target)


def _keep_settings(base: Path, target: Path) -> None:
    """Add entries of the base's config.json that transformers no longer writes.

    Other programs still need them: llama.cpp needs n_ctx of GPT-2 and rotary_pct of GPT-NeoX.
    """
    old, new = (json.loads((f / CONFIG).read_text(encoding="utf-8")) for f in (base, target))
    lost = {key: value for key, value in old.items() if key not in new and key not in _NOT_KEPT}
    if lost:
        (target / CONFIG).write_text(json.dumps({**new, **lost}, indent=2), encoding="utf-8")


def rounded(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Stochastic rounding of a finite float32 tensor to bfloat16; means are preserved.

    Training moves most weights by less than half a step of bfloat16. Rounding to nearest would
    reset them to the base and lose what was learned; with stochastic rounding a share of them
    moves a whole step (Gupta et al., arXiv 1502.02551). Values that bfloat16 can represent do not
    change.
    """
    chance = torch.randint(0, _DROPPED, weight.shape, generator=generator, dtype=torch.int32)
    bits = weight.contiguous().view(torch.int32) + chance.to(weight.device)
    return (bits & _KEPT).view(torch.float32).to(torch.bfloat16)


def merged_dtype(base: Path) -> torch.dtype:
    """float16 if the base is stored in float16, otherwise bfloat16."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    stored = config.get("dtype", config.get("torch_dtype"))
    return torch.float16 if stored == "float16" else torch.bfloat16
