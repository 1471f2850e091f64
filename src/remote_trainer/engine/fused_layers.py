"""Layers of Llama's kind in fewer and larger calls, for decoding on a CPU.

One token of a few rows is so little work that its many calls cost more than its arithmetic. What
reads the same input becomes one product, what turns queries and keys one rotation of both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralMLP
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2MLP
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3MLP

from remote_trainer.engine.attention import attention

# B = rows, T = tokens of each, H = heads of queries and keys, D = head size

Join = Callable[[Sequence[Any]], Module]
"""One layer in place of several linear ones that read the same input: outputs side by side."""

_ATTENTIONS = (LlamaAttention, MistralAttention, Qwen2Attention, Qwen3Attention)
_MLPS = (LlamaMLP, MistralMLP, Qwen2MLP, Qwen3MLP)


def projections(module: Module) -> list[Module]:
    """The linear layers of ``module`` that `fused` joins; none where it is of another kind."""
    names: tuple[str, ...] = ()
    if type(module) in _ATTENTIONS and not getattr(module.config, "sliding_window", None):
        names = ("q_proj", "k_proj", "v_proj")
    elif type(module) in _MLPS:
        names = ("gate_proj", "up_proj")
    return [getattr(module, name) for name in names]


def fused(module: Any, join: Join) -> Module:
    """What takes the place of an attention or feed-forward block that has `projections`."""
    joined = join(projections(module))
    return (
        FusedAttention(module, joined) if type(module) in _ATTENTIONS else FusedMLP(module, joined)
    )


class FusedAttention(Module):
    """One product for queries, keys and values, one rotation for queries and keys."""

    def __init__(self, attention: Any, projection: Module) -> None:
        super().__init__()
        self.projection, self.o_proj = projection, attention.o_proj
        # Qwen 3 has these.
        self.norms = [getattr(attention, n) for n in ("q_norm", "k_norm") if hasattr(attention, n)]
        # Read by transformers' attention, which runs where nothing is shared.
        self.layer_idx, self.is_causal = attention.layer_idx, attention.is_causal
        self.num_key_value_groups = attention.num_key_value_groups
        self._scaling, self._size = attention.scaling, attention.head_dim
        self._keys = attention.config.num_key_value_heads
        self._queries = attention.config.num_attention_heads

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """As the attention whose place it takes."""
        shape = hidden_states.shape[:-1]
        heads = self.projection(hidden_states).view(*shape, -1, self._size)
        both, value = torch.split(heads, [self._queries + self._keys, self._keys], dim=2)
        both_BHTD = _rotated(self._normed(both), *position_embeddings).transpose(1, 2)
        query, key = torch.split(both_BHTD, [self._queries, self._keys], dim=1)
        value = value.transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        output, _ = attention(
            self, query, key, value, attention_mask, scaling=self._scaling, dropout=0.0, **options
        )
        return self.o_proj(output.reshape(*shape, -1)), None

    def _normed(self, both_BTHD: Tensor) -> Tensor:
        if not self.norms:
            return both_BTHD
        parts = torch.split(both_BTHD, [self._queries, self._keys], dim=2)
        return torch.cat([norm(x) for norm, x in zip(self.norms, parts, strict=True)], dim=2)


class FusedMLP(Module):
    """One product for the gate and what it lets through."""

    def __init__(self, mlp: Any, projection: Module) -> None:
        super().__init__()
        self.projection, self.down_proj, self.act_fn = projection, mlp.down_proj, mlp.act_fn

    def forward(self, x: Tensor) -> Tensor:
        """(..., hidden size) in and out."""
        gate, up = self.projection(x).chunk(2, dim=-1)
        output: Tensor = self.down_proj(self.act_fn(gate) * up)
        return output


def _rotated(x_BTHD: Tensor, cos_BTD: Tensor, sin_BTD: Tensor) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864), halves of a head paired."""
    first, second = x_BTHD.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return torch.addcmul(x_BTHD * cos_BTD[:, :, None], turned, sin_BTD[:, :, None])
