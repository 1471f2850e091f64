"""Attention over tokens that share beginnings, where transformers' own would repeat them."""

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from remote_trainer.models.fast_path import why_not_global

# B = rows, H = query heads, Q = queries, K = keys, D = head size; key heads may be fewer than H

NO_MASK = torch.ones(1, 1, 1, 1, dtype=torch.bool)
"""In four dimensions a mask goes through transformers untouched, and none is made."""

_NAME = "sdpa"
_UNKNOWN = ("softcap", "s_aux", "position_bias", "sliding_window")


class SharedAttention(Protocol):
    """Knows which keys each query may see; handed to the model as ``shared=``."""

    def attend(
        self, layer: int, query_BHQD: Tensor, key_BHKD: Tensor, value_BHKD: Tensor, scaling: float
    ) -> Tensor:
        """Output, (B, Q, H, D)."""
        ...


def attention(
    module: Any,
    query_BHQD: Tensor,
    key_BHKD: Tensor,
    value_BHKD: Tensor,
    attention_mask: Tensor | None,
    shared: SharedAttention | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' ``sdpa``, which hands over to ``shared`` where a caller brings one.

    A model passes what its call got on to its attention, so nothing of a model is changed.
    Raises ValueError for a kind of attention that ``shared`` knows nothing of.
    """
    if shared is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BHQD, key_BHKD, value_BHKD, attention_mask, **options
        )
        return output
    unknown = [name for name in _UNKNOWN if options.get(name) is not None]
    if unknown or options.get("dropout"):
        raise ValueError(f"attention with {', '.join(unknown) or 'dropout'} cannot share a prefix")
    scaling = options.get("scaling") or query_BHQD.shape[-1] ** -0.5
    return shared.attend(module.layer_idx, query_BHQD, key_BHKD, value_BHKD, scaling), None


AttentionInterface.register(_NAME, attention)


def why_not_shared(causal: Any) -> str | None:
    """Why tokens of this model cannot share their beginnings, as far as its config tells."""
    config = causal.config.get_text_config()
    if config._attn_implementation != _NAME:
        return f"its attention runs as {config._attn_implementation}, not as {_NAME}"
    return why_not_global(
        getattr(config, "layer_types", None),
        getattr(config, "sliding_window", None),
        getattr(config, "use_sliding_window", True),
    )
