"""Temporary modes of a model, and how to query them."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

logger = logging.getLogger(__name__)


UNSLOTH_LOGITS = {"UNSLOTH_RETURN_HIDDEN_STATES": "0", "UNSLOTH_RETURN_LOGITS": "1"}
"""Unsloth reads these in every forward pass."""


@contextlib.contextmanager
def scoring_mode(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients, returning real logits.

    Restores the previous mode, also after an error: the loss follows without another call.
    """
    was_training = model.training
    by_unsloth = is_unsloths(model)
    checkpointing = _checkpointing(model) if by_unsloth else False
    with _environment(UNSLOTH_LOGITS if by_unsloth else {}):
        try:
            model.for_inference() if by_unsloth else model.eval()
            # inference_mode would return tensors that autograd refuses later.
            with torch.no_grad():
                yield
        finally:
            if by_unsloth and was_training:
                model.for_training(use_gradient_checkpointing=checkpointing)
            else:
                model.train(was_training)


def is_unsloths(model: Any) -> bool:
    """Whether Unsloth loaded the model: such models have two extra methods."""
    return hasattr(model, "for_inference") and hasattr(model, "for_training")


def _checkpointing(model: Any) -> Any:
    """The setting stored on the modules; Unsloth stores a string, not a bool."""
    found = (getattr(module, "gradient_checkpointing", False) for module in model.modules())
    return next((value for value in found if value), False)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def causal_model(model: Any) -> Any:
    """The language model behind wrappers and adapters."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def adapter_is_off(model: Any) -> bool:
    """Whether ``model`` currently acts as the reference: its adapter is disabled."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    first = next(layers, None) if isinstance(model, PeftModel) else None
    return first is not None and bool(first.disable_adapters)


def adapter_off(model: Any) -> contextlib.AbstractContextManager[Any]:
    """The reference model: the same weights without the adapter, if there is one."""
    if hasattr(model, "disable_adapter"):
        off: contextlib.AbstractContextManager[Any] = model.disable_adapter()
        return off
    return contextlib.nullcontext()


@contextlib.contextmanager
def learnt_in_float32(model: Any) -> Iterator[None]:
    """The trainable weights are what they were before the block, in float32.

    Around 0.1 bfloat16 has steps of 2^-11, a hundred times a learning rate of 5e-6, so that
    updates of a weight in bfloat16 would be lost in rounding.
    """
    learnt = [(p, p.data.float()) for p in model.parameters() if p.requires_grad]
    yield
    for parameter, values in learnt:
        parameter.data = values
