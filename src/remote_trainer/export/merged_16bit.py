"""Base and adapter merged into one 16-bit model, in safetensors shards."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from remote_trainer.export.mapped_weights import mapped
from remote_trainer.export.tokenizer_files import write_tokenizer
from remote_trainer.models.safetensors_header import FLOATS, tensors_in
from remote_trainer.run_dir import temporary_folder

MAX_SHARD = "4GB"
SEED = 0
CONFIG = "config.json"
_PART = 1 << 24  # values rounded in one call
_MAPPED = {"BF16": torch.bfloat16, "F16": torch.float16}
# These describe the stored weights of the base, not the merged ones.
_NOT_KEPT = ("torch_dtype", "dtype", "quantization_config", "_name_or_path", "transformers_version")
_KEPT, _DROPPED = -(1 << 16), 1 << 16  # the bits of a float32 that bfloat16 keeps, and the others


def merge(base: Path, adapter: Path, target: Path, dtype: torch.dtype | None = None) -> None:
    """Merge base and adapter into ``target``, which must exist.

    The sum is computed in float32 and rounded once, to ``dtype`` (None: `merged_dtype` of the
    base); to bfloat16 stochastically (see `rounded`). Memory: one layer. The base's weights are
    mapped from its files, the merged ones from files next to ``target`` until the shards are
    written. Raises ValueError for a non-finite weight.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    goal = dtype or merged_dtype(base)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=_stored_dtype(base), use_safetensors=True, local_files_only=True
    )
    weights = list(model.parameters())  # before the adapter brings its own
    with_adapter = PeftModel.from_pretrained(model, adapter)
    layers = _layers_of(with_adapter)
    generator = torch.Generator().manual_seed(SEED)
    with temporary_folder(target) as scratch:
        for weight in weights:
            for layer in layers.pop(weight, []):
                weight.data = weight.data.float()
                layer.merge(safe_merge=True)
            parts = _in_dtype(weight.data, goal, generator)
            weight.data = mapped(parts, weight.shape, scratch)
    assert not layers, "every layer with an adapter has a weight of the base"
    save(with_adapter.unload(), base, adapter, target, goal)


def _stored_dtype(base: Path) -> torch.dtype:
    """The dtype that all of the base's weights are stored in, because weights that are loaded in
    their own dtype are mapped; float32, which holds all of them, where there are several."""
    tensors = (
        tensor for file in base.glob("*.safetensors") for tensor in tensors_in(file).values()
    )
    kinds = {tensor.dtype for tensor in tensors if tensor.dtype in FLOATS}
    return _MAPPED.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32


def _layers_of(with_adapter: Any) -> dict[Any, list[Any]]:
    """Weight of the base -> the layers with an adapter whose weight it is: several if tied."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found: dict[Any, list[Any]] = {}
    for layer in with_adapter.modules():
        if isinstance(layer, BaseTunerLayer):
            found.setdefault(layer.get_base_layer().weight, []).append(layer)
    return found


def _in_dtype(weight: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Iterator[Tensor]:
    """The values in ``dtype``, part by part."""
    flat = weight.reshape(-1)
    for start in range(0, len(flat), _PART):
        part = flat[start : start + _PART]
        yield rounded(part.float(), generator) if dtype == torch.bfloat16 else part.to(dtype)


def save(model: Any, base: Path, tokenizer_from: Path, target: Path, dtype: torch.dtype) -> None:
    """Write weights, configs, tokenizer and chat template for transformers and vLLM."""
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
