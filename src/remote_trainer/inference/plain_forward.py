"""A model's own forward pass, asked for no more than it knows, and what reaches its head."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from remote_trainer.models.modes import causal_model

# N = rows, L = padded length, K = positions kept, H = hidden size, V = vocabulary

T = TypeVar("T")

_OPTIONAL = ("position_ids", "logits_to_keep")


def plain_logits(model: Any, kept: int, **inputs: Any) -> Tensor:
    """Logits of the last ``kept`` positions, (N, K, V), through ``model`` and whatever wraps it.

    Models that do not take position ids count positions by themselves, and those that cannot
    leave positions out are cut afterwards.
    """
    logits_NLV: Tensor = model(**_known(model, {**inputs, "logits_to_keep": kept})).logits
    return logits_NLV[:, -kept:]


def last_hidden(model: Any, **inputs: Any) -> Tensor:
    """What the head is given at every position, (N, L, H); the head itself sees the last one.

    The pass goes through ``model`` itself, so that wrappers see it. Raises ValueError for a model
    whose head is no module that is called with hidden states.
    """
    caught: list[Tensor] = []
    with _caught_before(causal_model(model).get_output_embeddings(), caught):
        model(**_known(model, {**inputs, "logits_to_keep": 0}))
    if len(caught) != 1 or caught[0].shape[:2] != inputs["input_ids"].shape:
        raise ValueError("its head is not called once with the hidden states of every position")
    return caught[0]


def recomputed(work: Callable[..., T], *arguments: Any) -> T:
    """``work(*arguments)`` whose activations are not kept: it runs again for the gradient."""
    found: T = checkpoint(work, *arguments, use_reentrant=False)
    return found


@contextmanager
def _caught_before(head: Any, caught: list[Tensor]) -> Iterator[None]:
    """In here, what ``head`` is called with is kept, and it sees the last position alone."""
    if head is None:
        raise ValueError("it has no head")

    def catch(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        caught.append(args[0])
        return (args[0][:, -1:], *args[1:])

    hook = head.register_forward_pre_hook(catch)
    try:
        yield
    finally:
        hook.remove()


def _known(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """``inputs`` without what the model's forward has no place for."""
    forward = getattr(causal_model(model), "forward", None)
    if forward is None:
        return inputs
    places = inspect.signature(forward).parameters
    if any(place.kind is inspect.Parameter.VAR_KEYWORD for place in places.values()):
        return inputs
    return {
        name: value for name, value in inputs.items() if name in places or name not in _OPTIONAL
    }
