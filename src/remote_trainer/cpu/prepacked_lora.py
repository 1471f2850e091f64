"""LoRA (arXiv 2106.09685) on frozen layers of a CPU, with the adapter's product added in place.

PEFT's layer makes a scaled product of the size of its output, then a sum, and autograd does so
again with the gradients. Of a small model's update that takes a twentieth.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.nn import Identity

from remote_trainer.cpu.prepacked_linear import PrepackedLinear

# M = rows, I = input size, O = output size, R = rank


def prepack_adapters(model: Any) -> None:
    """Let every LoRA layer on a `PrepackedLinear` add its product in place."""
    for module in model.modules():
        if type(module) is LoraLinear and type(module.base_layer) is PrepackedLinear:
            module.__class__ = PackedLoraLinear


def restore_adapters(model: Any) -> bool:
    """Make PEFT's layers of all that `prepack_adapters` changed; whether there were any."""
    layers = [module for module in model.modules() if type(module) is PackedLoraLinear]
    for layer in layers:
        layer.__class__ = LoraLinear
    return bool(layers)


class PackedLoraLinear(LoraLinear):  # type: ignore[misc]
    """PEFT's layer; where it is more than one plain product on top of another, it is PEFT's."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., I) -> (..., O)."""
        name = None if args or kwargs else self._plain_adapter(x)
        if name is None:
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        a_RI, b_OR = self.lora_A[name].weight, self.lora_B[name].weight
        return _Sum.apply(  # type: ignore[no-untyped-call,no-any-return]
            x, a_RI, b_OR, self.scaling[name], self.base_layer
        )

    def _plain_adapter(self, x: Tensor) -> str | None:
        """The active adapter, where there is one and it is A, B and a factor."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or self.lora_variant or len(names) != 1:
            return None
        if torch.is_autocast_enabled(
            x.device.type
        ):  # of the products some would be in another dtype
            return None
        drop, a, b = (part[names[0]] for part in (self.lora_dropout, self.lora_A, self.lora_B))
        kept = isinstance(drop, Identity) or not drop.training
        alike = a.weight.dtype == b.weight.dtype == x.dtype and b.bias is None
        return names[0] if kept and alike and self.base_layer.usable(x) else None


class _Sum(torch.autograd.Function):
    """What a frozen layer makes of x, plus factor * x A B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a_RI: Tensor, b_OR: Tensor, factor: float, base: PrepackedLinear
    ) -> Tensor:
        x_MI = x.reshape(-1, x.shape[-1])
        low_MR = x_MI @ a_RI.t()
        output = base.product(x)
        output.view(-1, len(b_OR)).addmm_(low_MR, b_OR.t(), alpha=factor)
        ctx.save_for_backward(x_MI, low_MR, a_RI, b_OR)
        ctx.factor, ctx.base = factor, base
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_MI, low_MR, a_RI, b_OR = ctx.saved_tensors
        g_MO = gradients[0].reshape(-1, len(b_OR))
        low_g_MR = (g_MO @ b_OR).mul_(ctx.factor)
        a_gradient = low_g_MR.t() @ x_MI
        b_gradient = (g_MO.t() @ low_MR).mul_(ctx.factor)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = ctx.base.transposed(gradients[0])
            x_gradient.view(-1, x_gradient.shape[-1]).addmm_(low_g_MR, a_RI)
        return x_gradient, a_gradient, b_gradient, None, None
