"""TRL's own config object, made so that what we set is what it holds."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

from trl import GRPOConfig

from remote_trainer.errors import EngineError
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer.trl_settings import NEWER_NAMES

SPELLINGS: Mapping[str, tuple[Any, ...]] = {
    "top_k": (0, -1, None),
    "report_to": ("none", [], ["none"]),
}
"""Values that mean the same; which one is held depends on the engine and on transformers."""
ENGINES_OWN = {"gradient_checkpointing_kwargs"}
"""Fields that belong to how an engine works: Unsloth's checkpoints are of another kind."""


def trl_arguments(settings: Mapping[str, Any], folder: RunDir, rewritten: bool) -> Any:
    """GRPOConfig with these fields.

    A rewritten one (Unsloth's) has other defaults than TRL, changes some values that it is given
    and fills in some that were left open. Every field is made to hold what TRL's own class holds.
    """
    settings = named_as_in(GRPOConfig, settings)
    if not rewritten:
        return GRPOConfig(output_dir=str(folder), **settings)
    stock = stock_class(GRPOConfig)
    meant = stock(output_dir=str(folder), **settings)
    arguments = GRPOConfig(output_dir=str(folder), **{**stock_defaults(stock), **settings})
    for field in fields(stock):
        value = getattr(meant, field.name)
        same = _same(field.name, getattr(arguments, field.name), value)
        if not same and field.name not in ENGINES_OWN:
            setattr(arguments, field.name, value)
    return arguments


def named_as_in(config_class: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the newer one of two names, where a config class has it."""
    there = {field.name for field in fields(config_class)}
    newer = {name: new for name, new in NEWER_NAMES.items() if new in there}
    return {newer.get(name, name): value for name, value in settings.items()}


def stock_class(config_class: Any) -> Any:
    """TRL's own GRPOConfig, whatever class stands in its place.

    The class in its place derives from it and says that it comes from the same module.
    """
    *_, last = (c for c in config_class.__mro__ if c.__module__ == "trl.trainer.grpo_config")
    return last


def stock_defaults(stock: Any) -> dict[str, Any]:
    """The default of every field of a config class that has one."""
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
    held, asked = (value.value if isinstance(value, Enum) else value for value in (held, asked))
    same = SPELLINGS.get(name, ())
    return bool(held == asked) or (held in same and asked in same)
