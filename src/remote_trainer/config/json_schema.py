"""The JSON schema of a config, for editors."""

from typing import Any

from remote_trainer.config.older import FORMAT_KEY
from remote_trainer.config.schema import RunConfig
from remote_trainer.rewards import REWARDS, RewardConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_WITHOUT_TYPE = ("inverse_loss", "function")
"""Rewards whose `type` may be omitted: the default, and the one that needs a `function`."""


def config_schema() -> dict[str, Any]:
    """Titles, descriptions, defaults and ranges of all settings; unknown keys are refused.

    It refuses what a single value can show. `check` also compares settings with each other, and
    with data and model.
    """
    schema = RunConfig.model_json_schema()
    kinds, properties = schema["$defs"], schema["properties"]
    kinds["AnyReward"] = _any_reward(kinds)
    one = {"$ref": "#/$defs/AnyReward"}
    properties["reward"] = {
        "title": "Reward",
        "description": "One reward, or a list of rewards that are summed by weight.",
        "anyOf": [one, {"type": "array", "items": one, "minItems": 1}],
        "default": {"type": RewardConfig().type},
    }
    properties[FORMAT_KEY] = {
        "title": "Config Format",
        "description": "Written by `train` into config.resolved.yaml; omit it elsewhere.",
        "type": "integer",
    }
    return {"$schema": DIALECT, **schema, "title": "remote_trainer config"}


def _any_reward(kinds: dict[str, Any]) -> dict[str, Any]:
    """The union of all rewards, told apart by `type`; makes `type` required in ``kinds``."""
    references = {name: f"#/$defs/{kind.__name__}" for name, kind in REWARDS.items()}
    for name, kind in REWARDS.items():
        if name not in _WITHOUT_TYPE:
            own = kinds[kind.__name__]
            own["required"] = ["type", *own.get("required", [])]
    return {
        "discriminator": {"propertyName": "type", "mapping": references},
        "oneOf": [{"$ref": reference} for reference in references.values()],
    }
