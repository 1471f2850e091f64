"""Frozen linear layers on a CPU, with their weights in the order oneDNN multiplies them in.

torch hands oneDNN plain weights in bfloat16, which it puts in order at every call, and leaves
float32 to a library that is slow for few rows. Kept in order, they take half the time for the few
rows of decoding and a sixth less for the hundreds of training.
"""

import logging
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn import Linear, Module, functional
from transformers.pytorch_utils import Conv1D

from remote_trainer.fallback import reason_to_give_up
from remote_trainer.models.hardware import orders_weights

logger = logging.getLogger(__name__)

# M = rows, I = input size, O = output size

_DTYPES = (torch.float32, torch.bfloat16)
_TINY = 1e-6
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.05}
_ROWS = 8  # oneDNN's order for few rows serves many as well


def can_order(weight_OI: Tensor) -> bool:
    """Whether the weight is frozen, on a CPU, and of a type that oneDNN keeps in order."""
    return (
        weight_OI.device.type == "cpu"
        and weight_OI.dtype in _DTYPES
        and not weight_OI.requires_grad
        and orders_weights()
    )


def sample(weight: Tensor) -> Tensor:
    """About one element of every row, to tell whether a weight is still what it was.

    Versions do not tell: PEFT merges adapters behind autograd's back.
    """
    return weight.detach().reshape(-1)[:: weight.shape[-1] + 1]


def prepack_linears(model: Any) -> bool:
    """Let every plain layer of ``model`` that can multiply that way; weights stay its own.

    Training comes to hold two ordered copies of each. False, and nothing is changed, where the
    memory that is free now does not hold them with as much again to work in.
    """
    layers = [m for m in model.modules() if type(m) is Linear and can_order(m.weight)]
    copies = 2 * sum(layer.weight.nbytes for layer in layers)
    if psutil.virtual_memory().available < 2 * copies:
        return False
    for layer in layers:
        layer.__class__ = PrepackedLinear
    reason = _why_not_right(layers)
    if reason is not None:
        restore_linears(model)
        logger.warning("linear layers run as torch's own: %s", reason)
    return reason is None


def count_packed(model: Any) -> str:
    """How many of the linear layers keep ordered copies, for people."""
    layers = [
        module
        for path, module in model.named_modules()
        if isinstance(module, Linear | Conv1D) and "lora_" not in path
    ]
    packed = sum(type(layer) is PrepackedLinear for layer in layers)
    return f"{packed} of {len(layers)} linear layers"


def restore_linears(model: Any) -> bool:
    """Make plain layers of all that `prepack_linears` changed; whether there were any."""
    layers: list[Any] = [m for m in model.modules() if type(m) is PrepackedLinear]
    for layer in layers:
        layer.__dict__.pop("_copies", None)
        layer.__class__ = Linear
    return bool(layers)


def _why_not_right(layers: Any) -> str | None:
    """Why ordered weights do not serve here, by the smallest layer of each type."""
    smallest = {
        layer.weight.dtype: layer for layer in sorted(layers, key=lambda x: -x.weight.numel())
    }
    for dtype, layer in smallest.items():
        generator = torch.Generator().manual_seed(0)
        x_MI = torch.randn(3, layer.in_features, generator=generator).to(dtype)
        try:
            found_MO = layer.product(x_MI).float()
        except Exception as error:
            return reason_to_give_up(error)
        del layer._copies  # made anew when it is needed
        expected_MO = functional.linear(x_MI, layer.weight, layer.bias).detach().float()
        gap = (found_MO - expected_MO).abs().max() / (expected_MO.abs().max() + _TINY)
        if not gap <= _ROUNDING[dtype]:
            return f"a product in {dtype} is {float(gap):.2g} of its size off"
    return None


def order_now(model: Any) -> None:
    """Make the copies that training needs before its activations stand between them."""
    for module in model.modules():
        if isinstance(module, PrepackedLinear):
            module.ordered(transposed=False)
            module.ordered(transposed=True)


class PrepackedLinear(Linear):
    """A `Linear` that keeps ordered copies of its weight, made when they are first needed.

    Where its weight is trained, or a caller moved it to another device, it is a plain `Linear`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        if not self.usable(x):
            return super().forward(x)
        if torch.is_grad_enabled() and x.requires_grad:
            output: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
            return output
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O), without gradient; for an ``x`` that is `usable`."""
        return _with_bias(_multiplied(x, self.ordered(transposed=False)), self.bias)

    def transposed(self, g: Tensor) -> Tensor:
        """(..., O) -> (..., I): the product that backward passes need."""
        if not self.usable(g):
            return g @ self.weight
        return _multiplied(g, self.ordered(transposed=True))

    def usable(self, x: Tensor) -> bool:
        """Whether ordered copies serve for this input."""
        weight = self.weight
        frozen = not weight.requires_grad and weight.device.type == "cpu"
        return frozen and x.dtype == weight.dtype and x.dtype in _DTYPES and x.numel() > 0

    def ordered(self, transposed: bool) -> Tensor:
        """The copy for one direction, made anew when the weight is another than it was made of."""
        copies: dict[bool, tuple[Tensor, Tensor]] = self.__dict__.setdefault("_copies", {})
        weight = self.weight.detach()
        now = sample(weight)
        if transposed not in copies or not torch.equal(copies[transposed][0], now):
            copies[transposed] = now.clone(), _ordered(weight.t() if transposed else weight)
        return copies[transposed][1]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}


class OrderedLinear(Module):
    """A linear layer of which only the ordered copy is kept: for passes without gradient."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self._weight, self._bias = _ordered(weight_OI), bias_O

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return _with_bias(_multiplied(x, self._weight), self._bias)


class _Product(torch.autograd.Function):
    """x times a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: PrepackedLinear) -> Tensor:
        ctx.linear = linear
        return linear.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.linear.transposed(gradients[0]), None


def _ordered(weight_OI: Tensor) -> Tensor:
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), _ROWS)
    return copy


def _multiplied(x: Tensor, ordered: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, ordered, None, "none", [], "")
    return product


def _with_bias(product: Tensor, bias_O: Tensor | None) -> Tensor:
    return product if bias_O is None else product.add_(bias_O)
