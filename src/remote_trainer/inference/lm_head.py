"""From hidden states to numbers about tokens, in chunks: logits are never kept."""

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from remote_trainer.cpu.prepacked_linear import PrepackedLinear
from remote_trainer.records import Measure

# N = tokens, H = hidden size, V = vocabulary

CHUNK_BYTES = 24 * 2**20  # under allocator.LARGEST_KEPT, so that chunks reuse their memory
MOST_CHUNK_BYTES = 2**30
_SHARE_OF_FREE = 16
"""On a GPU a chunk's logits take at most this part of the free memory; some copies exist."""
_FACTORS = ("logit_scale", "output_multiplier")
_DIVISORS = ("logits_scaling",)


@dataclass(frozen=True)
class Head:
    """What a model makes of its last hidden states: cap * tanh(factor * W h / cap)."""

    linear: Any
    factor: float = 1.0
    cap: float | None = None
    """Logits stay within plus and minus this; None: as they are."""

    @classmethod
    def of(cls, causal: Any) -> Self:
        """The head of a model, with what its config says is done to logits.

        A model that does more is told by a comparison with logits of its own.
        """
        config = causal.config.get_text_config()
        factor = 1.0
        for name in _FACTORS:
            factor *= getattr(config, name, None) or 1.0
        for name in _DIVISORS:
            factor /= getattr(config, name, None) or 1.0
        cap = getattr(config, "final_logit_softcapping", None)
        return cls(causal.get_output_embeddings(), factor, cap)

    @property
    def weight(self) -> Tensor:
        """(V, H)."""
        weight: Tensor = self.linear.weight
        return weight

    @property
    def is_plain(self) -> bool:
        """Whether it is a linear layer and no more."""
        return self.factor == 1 and self.cap is None

    def __call__(self, hidden_NH: Tensor) -> Tensor:
        """Logits, (N, V)."""
        logits_NV: Tensor = self.linear(hidden_NH)
        if self.factor != 1:
            logits_NV = logits_NV * self.factor
        return logits_NV if self.cap is None else torch.tanh(logits_NV / self.cap) * self.cap

    def slope(self, logits_NV: Tensor) -> Tensor | float:
        """How fast a logit moves with the product it is made of; (N, V) where that differs."""
        if self.cap is None:
            return self.factor
        return self.factor * (1 - (logits_NV / self.cap) ** 2)

    def transposed(self, g_NV: Tensor) -> Tensor:
        """(N, V) -> (N, H): what the linear layer passes back."""
        found: Tensor = (
            self.linear.transposed(g_NV)
            if isinstance(self.linear, PrepackedLinear)
            else g_NV @ self.weight
        )
        return found


def token_numbers(
    hidden_NH: Tensor, head: Any, target_N: Tensor, measure: Measure = "logprob"
) -> Tensor:
    """One number per token, (N,), float32, nats, temperature 1, without gradient.

    ``head`` is a `Head` or a linear layer.
    """
    numbers_N = torch.empty(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)
    for part in _parts(hidden_NH, head.weight):
        numbers_N[part] = numbers_of(head(hidden_NH[part]), target_N[part], measure)
    return numbers_N


def numbers_of(logits_NV: Tensor, target_N: Tensor, measure: Measure) -> Tensor:
    """The numbers asked for, (N,), in float32: bf16 would lose the differences we live on."""
    logits_NV = logits_NV.float()
    log_z_N = logits_NV.logsumexp(dim=-1)
    if measure == "self_certainty":
        return log_z_N - logits_NV.mean(dim=-1) - math.log(logits_NV.shape[-1])
    return logits_NV.gather(-1, target_N[:, None])[:, 0] - log_z_N


def logprobs_and_entropies(
    hidden_NH: Tensor, head: Any, target_N: Tensor, temperature: float, with_entropies: bool = True
) -> tuple[Tensor, Tensor]:
    """Log p of each target, with gradient, and the entropy of its distribution, without; (N,).

    float32, nats, at ``temperature``. The head's own weights get no gradient. Entropies that are
    not asked for are 0. ``head`` is a `Head` or a linear layer.
    """
    numbers: tuple[Tensor, Tensor] = _HeadLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_NH,
        head if isinstance(head, Head) else Head(head),
        target_N,
        temperature,
        with_entropies,
    )
    return numbers


class _HeadLogprobs(torch.autograd.Function):
    """The slope of a token's log-prob, (W[y] - p W) / T, does not depend on what becomes of it.

    So it is made on the way, while the logits are there: the backward pass is one product, needs
    no second pass over the vocabulary, and keeps (N, H) numbers in place of (N, V).
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        head: Head,
        target_N: Tensor,
        temperature: float,
        with_entropies: bool,
    ) -> tuple[Tensor, Tensor]:
        logprob_N = torch.empty(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)
        entropy_N = torch.zeros_like(logprob_N)
        slope_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        for part in _parts(hidden_NH, head.weight):
            logits = head(hidden_NH[part]).float()
            bend = 1.0 if head.is_plain else head.slope(logits)
            logprobs = (logits if temperature == 1 else logits / temperature).log_softmax(dim=-1)
            logprob_N[part] = logprobs.gather(-1, target_N[part, None])[:, 0]
            if slope_NH is None and not with_entropies:
                continue
            p = torch.exp(logprobs, out=logits)
            if with_entropies:
                entropy_N[part] = -logprobs.mul_(p).sum(dim=-1)
            if slope_NH is not None:
                slope_NH[part] = _slope(head, p, target_N[part], bend) / temperature
        ctx.mark_non_differentiable(entropy_N)
        ctx.save_for_backward(slope_NH)
        return logprob_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope_NH,) = ctx.saved_tensors
        return gradients[0][:, None].to(slope_NH.dtype) * slope_NH, None, None, None, None


def _slope(head: Head, p_NV: Tensor, target_N: Tensor, bend: Tensor | float) -> Tensor:
    """Of log p of the target with respect to the hidden state, at temperature 1, (N, H)."""
    dtype = head.weight.dtype
    if head.is_plain:
        return head.weight[target_N] - head.transposed(p_NV.to(dtype))
    g_NV = p_NV.neg()
    g_NV.scatter_add_(1, target_N[:, None], g_NV.new_ones(len(g_NV), 1))
    return head.transposed((g_NV * bend).to(dtype))


def _parts(hidden_NH: Tensor, weight_VH: Tensor) -> list[slice]:
    """Slices of tokens whose logits fit a chunk."""
    size = max(1, _chunk_bytes(hidden_NH.device) // (4 * len(weight_VH)))
    return [slice(start, start + size) for start in range(0, len(hidden_NH), size)]


def _chunk_bytes(device: torch.device) -> int:
    """More at once on a GPU, where 24 MiB of 152,000 words are 41 tokens and six launches."""
    if device.type != "cuda":
        return CHUNK_BYTES
    free = torch.cuda.mem_get_info(device)[0]
    return min(MOST_CHUNK_BYTES, max(CHUNK_BYTES, free // _SHARE_OF_FREE))
