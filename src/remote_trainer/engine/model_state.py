"""Modes a model is put into for a while, and how to ask for them."""

import contextlib
import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def scoring_mode(model: Any) -> Iterator[None]:
    """Evaluation mode without gradient; the previous mode comes back, also after an error."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def causal_model(model: Any) -> Any:
    """The language model behind wrappers and adapters."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def adapter_is_off(model: Any) -> bool:
    """Whether ``model`` answers as the reference right now: its adapter is there, switched off."""
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    first = next(layers, None) if isinstance(model, PeftModel) else None
    return first is not None and bool(first.disable_adapters)


def adapter_off(model: Any) -> contextlib.AbstractContextManager[Any]:
    """The reference model: the same weights without the adapter."""
    if hasattr(model, "disable_adapter"):
        off: contextlib.AbstractContextManager[Any] = model.disable_adapter()
        return off
    _warn_without_adapter()
    return contextlib.nullcontext()


@cache
def _warn_without_adapter() -> None:
    logger.warning(
        "scored_by: reference means the model without its adapter; this model has none, so it is "
        "judged by itself as it is now"
    )
