"""Attention over tokens that share beginnings, where transformers' own would repeat them.

It has a name of its own among the implementations of transformers, and only models that this
program was given carry it: any other model of the process keeps what it has.
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

NO_MASK = torch.ones(1, 1, 1, 1, dtype=torch.bool)
"""In four dimensions a mask goes through transformers untouched, and none is made."""

_STOCK = "sdpa"
_ASKS_FOR_STOCK = re.compile(r"""_attn_implementation\b[^\n]*["']sdpa["']""")
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


AttentionInterface.register(SHARED_SDPA, attention)
AttentionMaskInterface.register(SHARED_SDPA, sdpa_mask)


def use_shared_attention(model: Any) -> None:
    """Let ``model`` attend by `attention` where it attends by transformers' ``sdpa``.

    The numbers stay the same, and config.json never holds the name. Models that do not look their
    attention up by its name, or compare the name with others, keep what they have.
    """
    causal = causal_model(model)
    config = getattr(causal, "config", None)
    if getattr(config, "_attn_implementation", None) != _STOCK or is_unsloths(model):
        return
    if hasattr(causal, "set_attn_implementation") and _goes_by_name_alone(type(causal)):
        causal.set_attn_implementation(SHARED_SDPA)


def _goes_by_name_alone(kind: Any) -> bool:
    """Whether the code of a model looks its attention up, and does not itself ask for ``sdpa``."""
    if not kind._can_set_attn_implementation():
        return False
    try:
        code = inspect.getsource(sys.modules[kind.__module__])
    except (KeyError, OSError, TypeError):
        return False
    return not _ASKS_FOR_STOCK.search(code)


def require_shared(causal: Any) -> None:
    """Raises ValueError for a model that would leave ``shared`` out without a word."""
    found = causal.config.get_text_config()._attn_implementation
    if found != SHARED_SDPA:
        raise ValueError(f"its attention runs as {found}, which shares nothing")


def why_not_shared(causal: Any) -> str | None:
    """Why tokens of this model cannot share their beginnings, as far as its config tells."""
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
