"""The model as sampling runs it: adapter folded into the weights, in a dtype of its own."""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.nn import Linear, Module, Parameter

from remote_trainer.engine.attention import why_not_shared
from remote_trainer.engine.fused_layers import fused, projections
from remote_trainer.engine.model_state import causal_model
from remote_trainer.engine.packed_linear import OrderedLinear, PackedLinear, can_order, sample
from remote_trainer.engine.packed_lora import PackedLoraLinear

T = TypeVar("T", Module, Parameter)

_CUDA_SHARE = 0.5
_PLAIN = (Linear, PackedLinear)
_LORA = (LoraLinear, PackedLoraLinear)


class Conversions:
    """What became of frozen weights in other dtypes, so that it is made once and not per copy."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, torch.dtype, type], tuple[Tensor, Any]] = {}

    def get(self, kind: type[T], weight: Tensor, dtype: torch.dtype, make: Callable[[], T]) -> T:
        """``make()``, or what it gave for this weight as long as nobody changed it."""
        if weight.requires_grad:
            return make()
        key, now = (id(weight), dtype, kind), sample(weight)
        if key not in self._made or not torch.equal(self._made[key][0], now):
            self._made[key] = now.clone(), make()
        made: T = self._made[key][1]
        return made


def decoding_copy(model: Any, dtype: torch.dtype, conversions: Conversions | None = None) -> Any:
    """A second model of ``dtype`` that answers as ``model`` does now; ``model`` is not touched.

    Weights that need no change are shared, so the copy costs the memory of what is folded or
    converted; ``conversions`` keeps what later copies of the same model need again. The copy is
    meant to be thrown away: changes of ``model`` do not reach it. Where the adapter cannot be
    folded (a quantised base, a variant of LoRA, no room on the GPU) it keeps it, and the dtype of
    ``model``.
    """
    causal, known = causal_model(model), conversions or Conversions()
    foldable = all(map(_is_plain, _tuner_layers(causal))) and _fits(causal, dtype)
    dtype = dtype if foldable else causal.dtype
    stand_ins: dict[int, Any] = {}
    replaced: set[int] = set()
    blocks = _fusible(causal) if foldable else {}
    parts = {id(part) for joined in blocks.values() for part in joined}
    for module in _linear_layers(causal) if foldable else ():
        stand_in = _part(module, dtype) if id(module) in parts else _stand_in(module, dtype, known)
        if stand_in is not None:
            stand_ins[id(module)] = stand_in
            replaced |= {id(p) for p in module.parameters()}
    embedded = {id(p) for p in causal.get_input_embeddings().parameters()}  # may be the head's, too
    for tensor in chain(causal.parameters(), causal.buffers()):
        if id(tensor) not in replaced - embedded:
            stand_ins[id(tensor)] = _converted(tensor, dtype, known)
    # deepcopy takes what it finds in its memo in place of a copy.
    twin: Any = copy.deepcopy(causal, stand_ins)
    for name in blocks:
        twin.set_submodule(name, fused(twin.get_submodule(name), _joined))
    return twin.eval()


def _fusible(causal: Any) -> dict[str, list[Any]]:
    """Linear layers that the copy joins, by the name of their block: where one is made anew."""
    if why_not_shared(causal) is not None:
        return {}
    found = {name: projections(module) for name, module in causal.named_modules()}
    return {
        name: parts
        for name, parts in found.items()
        if any(type(part) in _LORA for part in parts)
        and all(can_order(_base(part).weight) for part in parts)
    }


def _linear_layers(causal: Any) -> Iterator[Module]:
    """Adapted layers whole, and linear layers that carry no adapter."""
    adapted = [module for module in causal.modules() if type(module) in _LORA]
    inside = {id(part) for layer in adapted for part in layer.modules()}
    yield from adapted
    for module in causal.modules():
        if type(module) in _PLAIN and id(module) not in inside:
            yield module


def _base(module: Any) -> Any:
    return module.base_layer if type(module) in _LORA else module


def _part(module: Any, dtype: torch.dtype) -> Module:
    """A layer that is going to be joined with others."""
    weight = _folded(module) if type(module) in _LORA else module.weight.detach()
    return _linear(_base(module), weight.to(dtype))


def _joined(parts: Sequence[Any]) -> Module:
    """One layer with the outputs of several side by side."""
    biases = [part.bias for part in parts if part.bias is not None]
    assert len(biases) in (0, len(parts)), "a bias for all that are joined, or for none"
    weight_OI = torch.cat([part.weight for part in parts])
    return OrderedLinear(weight_OI, torch.cat(biases) if biases else None)


def _stand_in(module: Any, dtype: torch.dtype, known: Conversions) -> Module | None:
    """What takes the layer's place in the copy; None: a copy of it with shared weights."""
    if type(module) in _LORA:
        return _fixed(module.base_layer, _folded(module), dtype)
    weight = module.weight
    if weight.dtype != dtype:
        return known.get(Module, weight, dtype, lambda: _fixed(module, weight.detach(), dtype))
    return module if type(module) is PackedLinear else None


def _folded(layer: Any) -> Tensor:
    """The weight with the adapter's product added, in the weight's own dtype."""
    weight: Tensor = layer.base_layer.weight.detach()
    if not layer.disable_adapters:
        for name in layer.active_adapters:
            if name in layer.lora_A:
                b, a = (half[name].weight.detach() for half in (layer.lora_B, layer.lora_A))
                weight = torch.addmm(weight, b.to(weight), a.to(weight), alpha=layer.scaling[name])
    return weight


def _fixed(linear: Any, weight_OI: Tensor, dtype: torch.dtype) -> Module:
    """A layer without gradient, with another weight than ``linear`` and its bias."""
    weight = weight_OI.to(dtype)
    if can_order(weight):
        return OrderedLinear(
            weight, None if linear.bias is None else linear.bias.detach().to(dtype)
        )
    return _linear(linear, weight)


def _linear(linear: Any, weight_OI: Tensor) -> Linear:
    fixed = Linear(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
    fixed.weight = Parameter(weight_OI, requires_grad=False)
    if linear.bias is not None:
        fixed.bias = Parameter(linear.bias.detach().to(weight_OI.dtype), requires_grad=False)
    return fixed


def _tuner_layers(causal: Any) -> Iterator[Module]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in causal.modules() if isinstance(module, BaseTunerLayer))


def _is_plain(layer: Any) -> bool:
    """Whether the layer is a linear map plus a scaled product of two matrices, and no more."""
    return (
        type(layer) in _LORA
        and type(layer.base_layer) in _PLAIN
        and not layer.lora_variant
        and not layer.merged
    )


def _converted(tensor: Tensor, dtype: torch.dtype, known: Conversions) -> Tensor:
    """A parameter in ``dtype``; buffers stay (rotary frequencies are float32 in every model)."""
    if not isinstance(tensor, Parameter) or not tensor.is_floating_point():
        return tensor
    if tensor.dtype == dtype and not tensor.requires_grad:
        return tensor

    def convert() -> Parameter:
        return Parameter(tensor.detach().to(dtype), requires_grad=False)

    return known.get(Parameter, tensor, dtype, convert)


def _fits(causal: Any, dtype: torch.dtype) -> bool:
    """On a GPU the copy must leave room for what decoding needs."""
    if causal.device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(causal.device)
    needed = sum(p.numel() for p in causal.parameters()) * dtype.itemsize
    return bool(needed <= _CUDA_SHARE * free)
