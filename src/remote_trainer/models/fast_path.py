"""Why a model does not take the fast path: in a run, or predicted from its files."""

from collections.abc import Iterable, Mapping
from typing import Any

ON = "on"
FUSED_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""``model_type`` of config.json whose layers are fused while sampling on a CPU."""
SHARED_SDPA = "remote_trainer_sdpa"
"""Name of `remote_trainer.models.attention.attention` among transformers' implementations."""
_ORDERED = ("auto", "float32", "bfloat16")


def fast_path(reasons: Mapping[str, str]) -> str:
    """``on``, or which parts are off and why; ``reasons``: part -> why it is off."""
    if not reasons:
        return ON
    return (
        f"off in part, because {'; '.join(f'{part}: {reason}' for part, reason in reasons.items())}"
    )


def attention_of(config: Any) -> str | None:
    """transformers' name for the attention of a model; ours counts as ``sdpa``."""
    name: str | None = getattr(config, "_attn_implementation", None)
    return "sdpa" if name == SHARED_SDPA else name


def why_not_global(layer_types: Iterable[str] | None, window: Any, windowed: Any) -> str | None:
    """Why such attention cannot share prefixes: it does not see all earlier tokens."""
    kinds = set(layer_types or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its layers use {', '.join(sorted(kinds - {'full_attention'}))}"
    return "its attention looks back through a sliding window" if window and windowed else None


def reasons_in_files(
    config: Mapping[str, Any], *, dtype: str, in_4bit: bool, remote_code: bool
) -> dict[str, str]:
    """Part of the fast path -> why it will be off on a CPU; ``config`` is config.json.

    Reasons that only a forward pass can reveal are missing.
    """
    found = {}
    ordered = None
    if in_4bit:
        ordered = "its weights are in 4 bits"
    elif dtype not in _ORDERED:
        ordered = f"its weights are {dtype}"
    if ordered is not None:
        found["ordered weights"] = ordered
    kind, layers = config.get("model_type"), config.get("layer_types")
    shared = why_not_global(
        map(str, layers) if isinstance(layers, list) else None,
        config.get("sliding_window"),
        config.get("use_sliding_window", True),
    )
    if remote_code and config.get("auto_map"):
        shared = shared or "it runs custom code, which is checked only when the model is loaded"
    if shared is not None:
        found["packed rows"] = shared
    fused = ordered or shared
    if kind not in FUSED_TYPES:
        fused = f"its layers are those of {kind}, and {', '.join(FUSED_TYPES)} can be fused"
    if fused is not None:
        found["fused layers"] = fused
    return found
