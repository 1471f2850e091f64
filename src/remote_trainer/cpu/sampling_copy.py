"""The model as sampling runs it: adapter folded into the weights, in a dtype of its own."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import FunctionType, MethodType
from typing import Any, TypeVar

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from transformers.pytorch_utils import Conv1D

from remote_trainer.cpu.fused_layers import FusedLayer, projections
from remote_trainer.cpu.prepacked_linear import (
    OrderedLinear,
    PrepackedLinear,
    can_order,
    sample,
    why_not_ordered,
)
from remote_trainer.cpu.prepacked_lora import PackedLoraLinear
from remote_trainer.models.attention import why_not_shared
from remote_trainer.models.modes import causal_model

T = TypeVar("T", Module, Parameter)

_CUDA_SHARE = 0.5
_PLAIN = (Linear, PrepackedLinear, Conv1D)
_LORA = (LoraLinear, PackedLoraLinear)


class ConvertedWeightCache:
    """What became of frozen weights in other dtypes, so that it is made once and not per copy."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, torch.dtype, type], _Converted] = {}

    def get(self, kind: type[T], weight: Tensor, dtype: torch.dtype, make: Callable[[], T]) -> T:
        """``make()``, or what it gave for this weight."""
        if weight.requires_grad:
            return make()
        key = id(weight), dtype, kind
        if key not in self._made:
            self._made[key] = _Converted(weight, sample(weight).clone(), make())
        made: T = self._made[key].made
        return made

    def forget_changed(self) -> None:
        """Drop what was made of weights that have changed since; one look at the device."""
        if not self._made:
            return
        same = [(sample(each.weight) == each.sample).all() for each in self._made.values()]
        kept = zip(self._made.items(), torch.stack(same).tolist(), strict=True)
        self._made = {key: each for (key, each), is_same in kept if is_same}


@dataclass(frozen=True)
class _Converted:
    """What was made of a frozen weight."""

    weight: Tensor
    sample: Tensor
    """Some values of the weight when it was converted."""
    made: Any


def make_sampling_copy(
    model: Any,
    dtype: torch.dtype,
    converted_weights: ConvertedWeightCache | None = None,
    fuse: bool = True,
) -> Any:
    """A second model of ``dtype`` that answers as ``model`` does now; ``model`` is not touched.

    Weights that need no change are shared, so the copy costs the memory of what is folded or
    converted; ``converted_weights`` keeps what later copies of the same model need again. The
    copy is meant to be thrown away: changes of ``model`` do not reach it. Where the adapter cannot
    be folded (a quantised base, a variant of LoRA, no room on the GPU) it keeps it, and the dtype
    of ``model``. Layers of Llama's kind that carry an adapter become one module each with
    ``fuse``.
    """
    causal, known = causal_model(model), converted_weights or ConvertedWeightCache()
    known.forget_changed()
    foldable = folding_blocker(causal, dtype) is None
    dtype = dtype if foldable else causal.dtype
    fusible = fuse and foldable and why_not_shared(causal) is None

    def stand_in(module: Module) -> Module | None:
        if fusible and _is_fusible(module):
            return FusedLayer(module, dtype, partial(_joined, dtype, known))
        return _stand_in(module, dtype, known) if foldable else None

    stand_ins = dict(_replaced(causal, stand_in, partial(_converted, dtype=dtype, known=known)))
    # deepcopy takes what it finds in its memo in place of a copy.
    sampling_copy: Any = copy.deepcopy(causal, stand_ins)
    _forget_borrowed_forwards(sampling_copy, causal)
    return sampling_copy.eval()


def folding_blocker(model: Any, dtype: torch.dtype) -> str | None:
    """Why a copy keeps the adapter apart, and with it the dtype of the model; None: it does not."""
    causal = causal_model(model)
    other: Any = next((layer for layer in _tuner_layers(causal) if not _is_plain(layer)), None)
    if other is not None:
        kind = type(getattr(other, "base_layer", other))
        more = "the adapter is more than a product"
        return more if kind in _PLAIN else f"it lies on layers of the kind {kind.__name__}"
    return None if _fits(causal, dtype) else "the GPU has no room for a second set of weights"


def has_fused_layers(model: Any, dtype: torch.dtype) -> bool:
    """Whether a copy fuses any layer."""
    causal = causal_model(model)
    return folding_blocker(causal, dtype) is None and any(map(_is_fusible, causal.modules()))


def fusing_blocker(model: Any, dtype: torch.dtype) -> str | None:
    """Why a copy fuses no layer; None: it does, or none carries an adapter to be fused for."""
    causal = causal_model(model)
    tuned: Any = next(_tuner_layers(causal), None)
    if tuned is None or has_fused_layers(causal, dtype):
        return None
    weight = tuned.get_base_layer().weight
    apart = folding_blocker(causal, dtype)
    if apart is not None:
        return f"the adapter is not folded in, {apart}"
    if not any(projections(module) for module in causal.modules()):
        kinds = ", ".join(sorted(getattr(causal, "_no_split_modules", None) or ()))
        return f"its layers ({kinds or type(causal).__name__}) are not of Llama's kind"
    return why_not_ordered(weight) or "none of its layers can be joined"


def _forget_borrowed_forwards(sampling_copy: Any, causal: Any) -> None:
    """What was put in place of one module's `forward` (TRL does so) is not copied with it.

    Functions are never copied, so the copy would run the model that they were made for.
    """
    shared = {id(module) for module in causal.modules()}
    for module in sampling_copy.modules():
        put_on = vars(module).get("forward")
        # A method was bound to the copy; what its function holds was not.
        if id(module) not in shared and _holds_module(getattr(put_on, "__func__", put_on)):
            del module.forward


def _holds_module(function: Any) -> bool:
    """Whether a function knows a module from where it was made, by itself or through another."""
    waiting, seen = [function], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Module):
            return True
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, MethodType):
            waiting += [value.__self__, value.__func__]
        elif isinstance(value, FunctionType):
            waiting += inspect.getclosurevars(value).nonlocals.values()
    return False


def _replaced(
    module: Module,
    stand_in: Callable[[Module], Module | None],
    converted: Callable[[Tensor], Tensor],
) -> Iterator[tuple[int, Any]]:
    """By its id, what takes the place of each module, or else of its tensors."""
    found = stand_in(module)
    if found is not None:
        yield id(module), found
        return
    for tensor in chain(module.parameters(recurse=False), module.buffers(recurse=False)):
        yield id(tensor), converted(tensor)
    for part in module.children():
        yield from _replaced(part, stand_in, converted)


def _is_fusible(module: Module) -> bool:
    """Whether the copy fuses this layer: an adapter makes it another at every update anyway."""
    parts = projections(module)
    return any(type(part) in _LORA for part in parts) and all(
        type(part) in (*_LORA, *_PLAIN) and can_order(_base(part).weight) for part in parts
    )


def _base(module: Any) -> Any:
    return module.base_layer if type(module) in _LORA else module


def _joined(
    dtype: torch.dtype, known: ConvertedWeightCache, parts: Sequence[Any], scale_I: Tensor | None
) -> Module:
    """One layer with the outputs of several side by side, for inputs that lack a factor."""

    def join() -> OrderedLinear:
        biases = [_base(part).bias for part in parts if _base(part).bias is not None]
        assert len(biases) in (0, len(parts)), "a bias for all that are joined, or for none"
        weights = [_folded(part) for part in parts]
        joined_OI = weights[0].new_empty(sum(map(len, weights)), weights[0].shape[1], dtype=dtype)
        rows = torch.split(joined_OI, [len(weight) for weight in weights])
        for row, weight in zip(rows, weights, strict=True):
            row.copy_(weight if scale_I is None else weight * scale_I)
        return OrderedLinear(joined_OI, torch.cat(biases).detach().to(dtype) if biases else None)

    if any(type(part) in _LORA for part in parts):
        return join()
    # Of another kind than the layer that takes the place of the first part alone.
    return known.get(OrderedLinear, parts[0].weight, dtype, join)


def _stand_in(module: Any, dtype: torch.dtype, known: ConvertedWeightCache) -> Module | None:
    """What takes a linear layer's place in the copy; None: a copy of it with shared weights."""
    if type(module) in _LORA:
        return _fixed(module.base_layer, _folded(module), dtype)
    if type(module) not in _PLAIN:
        return None
    weight = module.weight
    if weight.dtype != dtype:
        return known.get(Module, weight, dtype, lambda: _fixed(module, _folded(module), dtype))
    return module if type(module) is PrepackedLinear else None


def _folded(layer: Any) -> Tensor:
    """(O, I): the weight with the adapter's product added, if any, in the weight's own dtype."""
    base = _base(layer)
    weight: Tensor = base.weight.detach()
    weight = weight.t() if type(base) is Conv1D else weight  # which keeps (I, O)
    if type(layer) in _LORA and not layer.disable_adapters:
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
    outputs, inputs = weight_OI.shape
    fixed = Linear(inputs, outputs, linear.bias is not None, device="meta")
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


def _converted(tensor: Tensor, dtype: torch.dtype, known: ConvertedWeightCache) -> Tensor:
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
