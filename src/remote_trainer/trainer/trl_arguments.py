"""TRL's own config object, made so that what we set is what it holds."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

from trl import GRPOConfig

from remote_trainer.errors import EngineError
from remote_trainer.run_dir import RunDir

SPELLINGS: Mapping[str, tuple[Any, ...]] = {
    "top_k": (0, -1, None),
    "report_to": ("none", [], ["none"]),
}
"""Values that mean the same; which one is held depends on the engine and on transformers."""


def trl_arguments(settings: Mapping[str, Any], folder: RunDir, rewritten: bool) -> Any:
    """GRPOConfig with these fields.

    A rewritten one (Unsloth's) has other defaults than TRL and changes some values that it is
    given. It gets TRL's defaults by name and, where it changed a value all the same, that value
    again.
    """
    asked = {**stock_defaults(GRPOConfig), **settings} if rewritten else dict(settings)
    arguments = GRPOConfig(output_dir=str(folder), **asked)
    if rewritten:
        for name, value in asked.items():
            if not _same(name, getattr(arguments, name), value) and not _derived(name, value):
                setattr(arguments, name, value)
    return arguments


def stock_defaults(config_class: Any) -> dict[str, Any]:
    """TRL's default of every GRPOConfig field that has one, whatever class stands in its place."""
    stock = next(
        each for each in config_class.__mro__ if each.__module__ == "trl.trainer.grpo_config"
    )
    return {
        field.name: field.default
        for field in fields(stock)
        if field.init and field.default is not MISSING and field.name != "output_dir"
    }


def require_settings(arguments: Any, settings: Mapping[str, Any]) -> None:
    """Raises EngineError for every field that is not what we set."""
    wrong = [
        f"{name} is {getattr(arguments, name)!r} and was set to {value!r}"
        for name, value in settings.items()
        if not _same(name, getattr(arguments, name), value)
    ]
    if wrong:
        raise EngineError(f"the engine changed TRL's settings: {'; '.join(wrong)}")


def _same(name: str, held: Any, asked: Any) -> bool:
    held = held.value if isinstance(held, Enum) else held
    same = SPELLINGS.get(name, ())
    return bool(held == asked) or (held in same and asked in same)


def _derived(name: str, value: Any) -> bool:
    """A default of None that TRL fills in by itself from other fields."""
    return value is None
