"""Which ids end a text, by what a model itself says."""

from typing import Any


def ids_in(value: Any) -> tuple[int, ...]:
    """An ``eos_token_id`` as config files and models have it: nothing, one id, or several."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return tuple(value) if isinstance(value, list | tuple) else ()


def eos_ids_of(model: Any) -> tuple[int, ...]:
    """Every id that a loaded model ends a text at (an end-of-turn token, for instance)."""
    return ids_in(getattr(getattr(model, "generation_config", None), "eos_token_id", None))
