"""Attention over tokens that share prefixes, where transformers' own would repeat them.

It is registered with transformers under its own name. Only models that this program loads use it;
other models in the process are unchanged.
"""

import inspect
import re
import sys
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from remote_trainer.models.fast_path import SHARED_SDPA, attention_of, why_not_global
from remote_trainer.models.modes import causal_model, is_unsloths

# B = rows, H = query heads, Q = queries, K = keys, D = head size; key heads may be fewer than H

_STOCK = "sdpa"
_ASKS_FOR_STOCK = re.compile(r"""_attn_implementation\b[^\n]*["']sdpa["']""")
_UNKNOWN = ("softcap", "s_aux", "position_bias", "sliding_window")


def no_mask(device: torch.device) -> Tensor:
    """A mask that hides nothing; transformers passes a four-dimensional one on unchanged."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


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
    """transformers' ``sdpa``, or ``shared.attend`` if the caller passes ``shared``.

    Models forward keyword arguments to their attention, so no model code is changed.
    Raises ValueError for attention options that ``shared`` does not support.
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


AttentionInterface.register(SHARED_SDPA, attention)
AttentionMaskInterface.register(SHARED_SDPA, sdpa_mask)


def use_shared_attention(model: Any) -> None:
    """Make ``model`` use `attention` if it uses transformers' ``sdpa``.

    Results stay the same, and config.json never contains the name. Models that do not look up
    their attention by name, or compare the name with others, are unchanged.
    """
    causal = causal_model(model)
    config = getattr(causal, "config", None)
    if getattr(config, "_attn_implementation", None) != _STOCK or is_unsloths(model):
        return
    if hasattr(causal, "set_attn_implementation") and _goes_by_name_alone(type(causal)):
        causal.set_attn_implementation(SHARED_SDPA)


def _goes_by_name_alone(kind: Any) -> bool:
    """Whether the model's code looks up its attention by name, and never requires ``sdpa``."""
    if not kind._can_set_attn_implementation():
        return False
    try:
        code = inspect.getsource(sys.modules[kind.__module__])
    except (KeyError, OSError, TypeError):
        return False
    return not _ASKS_FOR_STOCK.search(code)


def require_shared(causal: Any) -> None:
    """Raises ValueError for a model that would silently ignore ``shared``."""
    found = causal.config.get_text_config()._attn_implementation
    if found != SHARED_SDPA:
        raise ValueError(f"its attention runs as {found}, which cannot share prefixes")


def why_not_shared(causal: Any) -> str | None:
    """Why sequences of this model cannot share prefixes, according to its config."""
    config = causal.config.get_text_config()
    if config._attn_implementation != SHARED_SDPA:
        own = attention_of(config)
        if own == _STOCK:
            return f"it does not look its attention up by name, and runs transformers' {_STOCK}"
        return f"its attention runs as {own}, not as {_STOCK}"
    return why_not_global(
        getattr(config, "layer_types", None),
        getattr(config, "sliding_window", None),
        getattr(config, "use_sliding_window", True),
    )
