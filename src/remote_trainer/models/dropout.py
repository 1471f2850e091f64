"""Dropout of a base model: where it is configured, and how to disable it."""

from collections.abc import Iterator
from typing import Any

from torch.nn import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
    Module,
)

_KINDS = (Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout)
# Attributes in which models and configs keep rates that they pass to functions, not modules:
# attention_dropout, attn_pdrop, hidden_dropout, dropout, activation_dropout, layerdrop.
_MARKS = ("dropout", "pdrop", "layerdrop")


def switch_off(model: Any) -> None:
    """Disable the dropout of ``model``, also in training. Call it before adding an adapter, which
    has its own dropout."""
    for module in _dropping(model):
        module.p = 0.0
    for holder, name in _shares(model):
        setattr(holder, name, 0.0)


def drops_out(model: Any) -> bool:
    """Whether dropout is active in training mode, including the adapter's."""
    return next(_dropping(model), None) is not None or drops_inside(model)


def drops_inside(model: Any) -> bool:
    """Whether a function call applies dropout, for instance inside attention."""
    return next(_shares(model), None) is not None


def rest(model: Any) -> None:
    """Put every dropout module into evaluation mode, whatever the mode of the model."""
    for module in model.modules():
        if isinstance(module, _KINDS):
            module.eval()


def _dropping(model: Any) -> Iterator[Any]:
    return (m for m in model.modules() if isinstance(m, _KINDS) and m.p > 0)


def _shares(model: Any) -> Iterator[tuple[Any, str]]:
    """(object, attribute) of every rate above 0 that is passed to a function."""
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, _KINDS):
            continue
        for holder in (module, getattr(module, "config", None)):
            if holder is None or id(holder) in seen:
                continue
            seen.add(id(holder))
            for name, value in list(_attributes(holder)):
                if _is_share(name, value):
                    yield holder, name


def _attributes(holder: Any) -> Iterator[tuple[str, Any]]:
    found = vars(holder) if hasattr(holder, "__dict__") else {}
    return ((name, value) for name, value in found.items() if not isinstance(value, Module))


def _is_share(name: str, value: Any) -> bool:
    lowered = name.lower()
    number = isinstance(value, float | int) and not isinstance(value, bool)
    mine = any(mark in lowered for mark in _MARKS) and "lora" not in lowered
    return mine and number and 0 < value <= 1
