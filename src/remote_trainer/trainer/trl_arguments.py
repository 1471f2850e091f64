"""Creates TRL's GRPOConfig and verifies that it has our settings."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

from trl import GRPOConfig

from remote_trainer.errors import EngineError
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer.trl_settings import NEWER_NAMES

EQUIVALENT_VALUES: Mapping[str, tuple[Any, ...]] = {
    "top_k": (0, -1, None),
    "report_to": ("none", [], ["none"]),
}
"""Values with the same meaning; engine and transformers version decide which one is used."""
ENGINE_FIELDS = {"gradient_checkpointing_kwargs"}
"""Fields that the engine sets: Unsloth has its own gradient checkpointing."""


def trl_arguments(settings: Mapping[str, Any], folder: RunDir, rewritten: bool) -> Any:
    """GRPOConfig with these fields.

    A rewritten class (Unsloth's) has other defaults than TRL's, changes some given values and fills
    in others. Every field gets the value that TRL's own class gives it.
    """
    settings = with_newer_names(GRPOConfig, settings)
    if not rewritten:
        return GRPOConfig(output_dir=str(folder), **settings)
    stock = stock_class(GRPOConfig)
    expected = stock(output_dir=str(folder), **settings)
    arguments = GRPOConfig(output_dir=str(folder), **{**stock_defaults(stock), **settings})
    for field in fields(stock):
        value = getattr(expected, field.name)
        same = _same(field.name, getattr(arguments, field.name), value)
        if not same and field.name not in ENGINE_FIELDS:
            setattr(arguments, field.name, value)
    return arguments


def with_newer_names(config_class: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with newer field names, if the config class has them."""
    names = {field.name for field in fields(config_class)}
    newer = {name: new for name, new in NEWER_NAMES.items() if new in names}
    return {newer.get(name, name): value for name, value in settings.items()}


def stock_class(config_class: Any) -> Any:
    """TRL's own GRPOConfig, even if an engine has replaced it.

    The replacement is a subclass that claims the same module.
    """
    *_, last = (c for c in config_class.__mro__ if c.__module__ == "trl.trainer.grpo_config")
    return last


def stock_defaults(stock: Any) -> dict[str, Any]:
    """The defaults of a config class, except for ``output_dir``."""
    return {
        field.name: field.default
        for field in fields(stock)
        if field.init and field.default is not MISSING and field.name != "output_dir"
    }


def require_settings(arguments: Any, settings: Mapping[str, Any]) -> None:
    """Raises EngineError that lists every field whose value is not what we set."""
    wrong = [
        f"{name} is {getattr(arguments, name)!r} and was set to {value!r}"
        for name, value in settings.items()
        if not _same(name, getattr(arguments, name), value)
    ]
    if wrong:
        raise EngineError(f"the engine changed TRL's settings: {'; '.join(wrong)}")


def _same(name: str, actual: Any, wanted: Any) -> bool:
    actual, wanted = (v.value if isinstance(v, Enum) else v for v in (actual, wanted))
    same = EQUIVALENT_VALUES.get(name, ())
    return bool(actual == wanted) or (actual in same and wanted in same)
