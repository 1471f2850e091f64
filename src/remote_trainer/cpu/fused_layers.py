"""Layers of Llama's kind as one module of fewer and larger calls, for decoding on a CPU.

One token of a few rows is so little work that its many calls cost more than its arithmetic. What
reads the same input becomes one product, what turns queries and keys one rotation of both, and the
weights of norms become part of the products behind them.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from remote_trainer.models.attention import attention

# B = rows, T = tokens of each, H = heads of queries and keys, D = head size, I = input size

Join = Callable[[Sequence[Any], Tensor | None], Module]
"""One layer in place of linear ones that read the same input: outputs side by side.

The input is multiplied by the tensor (I,) first, where there is one.
"""

FUSED_KINDS = (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer, Qwen3DecoderLayer)


def projections(module: Any) -> list[Any]:
    """The linear layers of a layer that can become a `FusedLayer`; none where it is another."""
    if type(module) not in FUSED_KINDS or getattr(module.self_attn.config, "sliding_window", None):
        return []
    heads, mlp = module.self_attn, module.mlp
    return [
        *(heads.q_proj, heads.k_proj, heads.v_proj, heads.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    ]


class FusedLayer(Module):
    """A layer that has `projections`, in ``dtype`` and without gradient."""

    def __init__(self, layer: Any, dtype: torch.dtype, join: Join) -> None:
        super().__init__()
        heads, mlp = layer.self_attn, layer.mlp
        norms = layer.input_layernorm, layer.post_attention_layernorm
        self._norms = [_Norm(norm) for norm in norms]
        self.heads_in = join([heads.q_proj, heads.k_proj, heads.v_proj], self._norms[0].scale_I)
        self.heads_out = join([heads.o_proj], None)
        self.mlp_in = join([mlp.gate_proj, mlp.up_proj], self._norms[1].scale_I)
        self.mlp_out = join([mlp.down_proj], None)
        # Qwen 3 has these.
        found = [getattr(heads, name) for name in ("q_norm", "k_norm") if hasattr(heads, name)]
        self.head_norms = [copy.deepcopy(norm).to(dtype) for norm in found]
        # Read by transformers' attention, which runs where nothing is shared.
        self.layer_idx, self.is_causal = heads.layer_idx, heads.is_causal
        self.num_key_value_groups = heads.num_key_value_groups
        self._scaling, self._size = heads.scaling, heads.head_dim
        self._keys = heads.config.num_key_value_heads
        self._queries = heads.config.num_attention_heads
        self._act = mlp.act_fn

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """(B, T, hidden size) in and out, as the layer whose place it takes."""
        shape = hidden_states.shape[:-1]
        heads = self.heads_in(self._norms[0](hidden_states)).view(*shape, -1, self._size)
        both, value = torch.split(heads, [self._queries + self._keys, self._keys], dim=2)
        both_BHTD = _rotated(self._normed(both), *position_embeddings).transpose(1, 2)
        query, key = torch.split(both_BHTD, [self._queries, self._keys], dim=1)
        value = value.transpose(1, 2)
        cache = _cache_among(options)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        read, _ = attention(
            self, query, key, value, attention_mask, scaling=self._scaling, dropout=0.0, **options
        )
        hidden: Tensor = self.heads_out(read.reshape(*shape, -1)).add_(hidden_states)
        gate, up = self.mlp_in(self._norms[1](hidden)).chunk(2, dim=-1)
        return hidden.add_(self.mlp_out(self._act(gate).mul_(up)))

    def _normed(self, both_BTHD: Tensor) -> Tensor:
        if not self.head_norms:
            return both_BTHD
        parts = torch.split(both_BTHD, [self._queries, self._keys], dim=2)
        return torch.cat([norm(x) for norm, x in zip(self.head_norms, parts, strict=True)], dim=2)


def _cache_among(options: dict[str, Any]) -> Cache | None:
    """Taken out of what a layer is called with; by its kind, so that none is left empty.

    Its name is not the same in every transformers (``past_key_values``, ``cache``).
    """
    caches = [name for name, value in options.items() if isinstance(value, Cache)]
    return next((options.pop(name) for name in caches), None)


class _Norm:
    """RMSNorm (arXiv 1910.07467) but for the factors ``scale_I``, which the product behind it has.

    x / sqrt(mean(x^2) + eps) is sqrt(I) times x over the hypotenuse of |x| and sqrt(I eps).
    """

    def __init__(self, norm: Any) -> None:
        size = len(norm.weight)
        self.scale_I = norm.weight.detach().float() * math.sqrt(size)
        self._least = self.scale_I.new_tensor(math.sqrt(size * norm.variance_epsilon))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., I) in and out; the root is taken in float32."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return torch.div(x, length.hypot_(self._least), out=torch.empty_like(x))


def _rotated(x_BTHD: Tensor, cos_BTD: Tensor, sin_BTD: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864), halves of a head paired."""
    first, second = x_BTHD.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return torch.addcmul(x_BTHD * cos_BTD[:, :, None], turned, sin_BTD[:, :, None])
