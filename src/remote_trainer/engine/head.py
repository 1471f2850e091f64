"""From hidden states to numbers about tokens, in chunks: logits are never kept."""

import math
from typing import Any

import torch
from torch import Tensor

from remote_trainer.engine.packed_linear import PackedLinear
from remote_trainer.records import Measure

# N = tokens, H = hidden size, V = vocabulary

CHUNK_BYTES = 24 * 2**20  # under allocator.LARGEST_KEPT, so that chunks reuse their memory


def token_numbers(
    hidden_NH: Tensor, head: Any, target_N: Tensor, measure: Measure = "logprob"
) -> Tensor:
    """One number per token, (N,), float32, nats, temperature 1, without gradient."""
    numbers_N = torch.empty(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)
    for part in _parts(hidden_NH, head.weight):
        logits = head(hidden_NH[part]).float()
        log_z = logits.logsumexp(dim=-1)
        if measure == "self_certainty":
            numbers_N[part] = log_z - logits.mean(dim=-1) - math.log(logits.shape[-1])
        elif measure == "entropy":
            p = (logits - log_z[:, None]).exp_()
            numbers_N[part] = log_z - (p * logits).sum(dim=-1)
        else:
            numbers_N[part] = logits.gather(-1, target_N[part, None])[:, 0] - log_z
    return numbers_N


def logprobs_and_entropies(
    hidden_NH: Tensor, head: Any, target_N: Tensor, temperature: float, with_entropies: bool = True
) -> tuple[Tensor, Tensor]:
    """Log p of each target, with gradient, and the entropy of its distribution, without; (N,).

    float32, nats, at ``temperature``. The head's own weights get no gradient. Entropies that are
    not asked for are 0.
    """
    numbers: tuple[Tensor, Tensor] = _HeadLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head, target_N, temperature, with_entropies
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
        head: Any,
        target_N: Tensor,
        temperature: float,
        with_entropies: bool,
    ) -> tuple[Tensor, Tensor]:
        logprob_N = torch.empty(len(hidden_NH), dtype=torch.float32, device=hidden_NH.device)
        entropy_N = torch.zeros_like(logprob_N)
        slope_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        for part in _parts(hidden_NH, head.weight):
            logits = head(hidden_NH[part]).float()
            logprobs = (logits if temperature == 1 else logits / temperature).log_softmax(dim=-1)
            logprob_N[part] = logprobs.gather(-1, target_N[part, None])[:, 0]
            if slope_NH is None and not with_entropies:
                continue
            p = torch.exp(logprobs, out=logits)
            if with_entropies:
                entropy_N[part] = -logprobs.mul_(p).sum(dim=-1)
            if slope_NH is not None:
                expected = _towards_hidden(head, p.to(head.weight.dtype))
                slope_NH[part] = (head.weight[target_N[part]] - expected) / temperature
        ctx.mark_non_differentiable(entropy_N)
        ctx.save_for_backward(slope_NH)
        return logprob_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope_NH,) = ctx.saved_tensors
        return gradients[0][:, None].to(slope_NH.dtype) * slope_NH, None, None, None, None


def _towards_hidden(head: Any, p_NV: Tensor) -> Tensor:
    weighted: Tensor = (
        head.transposed(p_NV) if isinstance(head, PackedLinear) else p_NV @ head.weight
    )
    return weighted


def _parts(hidden_NH: Tensor, weight_VH: Tensor) -> list[slice]:
    """Slices of tokens whose logits fit ``CHUNK_BYTES``."""
    size = max(1, CHUNK_BYTES // (4 * len(weight_VH)))
    return [slice(start, start + size) for start in range(0, len(hidden_NH), size)]
