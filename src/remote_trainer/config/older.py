"""Former defaults and behaviour of settings, so that a run continues as it started."""

from collections.abc import Iterator, Mapping
from typing import Any

from remote_trainer.config.schema import RunConfig
from remote_trainer.config.section import Section
from remote_trainer.rewards.base import RewardConfig, implied_type

CONFIG_FORMAT = 5
"""Format of config.resolved.yaml; increased when a default changes, or when that of a new setting
differs from the former behaviour."""
FORMAT_KEY = "config_format"

Former = Mapping[int, Mapping[str, Any]]
"""A format, newest first -> the values before it of what it changed."""

FORMER: Former = {
    5: {"training.learning_rate": 2.0e-4, "training.max_completion_length": 128},
    4: {
        "training.learning_rate": 5.0e-6,
        "training.gradient_accumulation_steps": 4,
        "training.max_completion_length": 512,
        "training.beta": 0.04,
        "training.max_steps": 100,
        "training.scale_rewards": "group",
    },
    3: {"evaluation.limit_from": "references"},
    2: {"training.disable_dropout": False},
}

FORMER_CONNECTOR = "\nAnswer: "
FORMER_OF_REWARDS: Mapping[str, Former] = {
    "supervised": {
        4: {"connector": FORMER_CONNECTOR, "scored_by": "policy", "fluency_weight": 0.0},
    },
    "answer_likelihood": {4: {"connector": FORMER_CONNECTOR}},
    "inverse_loss": {4: {"scored_by": "policy"}},
}
"""Type of a reward -> its options."""


def format_of(resolved: Any) -> int:
    """The format of a config.resolved.yaml; the first format did not record it."""
    found = resolved.get(FORMAT_KEY, 1) if isinstance(resolved, dict) else 1
    return found if isinstance(found, int) else 1


def fill_in(value: dict[str, Any], written: int) -> None:
    """Add missing settings to the content of a config of the format ``written``."""
    for key, before in _before(FORMER, written).items():
        section, _, name = key.partition(".")
        holder = value.setdefault(section, {})
        if isinstance(holder, dict):
            holder.setdefault(name, before)
    rewards = value.get("reward", [{}])
    for reward in rewards if isinstance(rewards, list) else [rewards]:
        if isinstance(reward, dict):
            for name, before in _before_of_reward(implied_type(reward), written).items():
                reward.setdefault(name, before)


def as_begun(config: RunConfig, written: int) -> RunConfig:
    """``config`` for a run that started with the format ``written``: what the config leaves to the
    defaults gets the default of that time."""
    changed: dict[str, Any] = dict(_changed_sections(config, _before(FORMER, written)))
    rewards = [_as_begun(reward, written) for reward in config.reward]
    if rewards != config.reward:
        changed["reward"] = rewards
    return config.model_copy(update=changed) if changed else config


def _changed_sections(
    config: RunConfig, values: Mapping[str, Any]
) -> Iterator[tuple[str, Section]]:
    names: dict[str, dict[str, Any]] = {}
    for key, before in values.items():
        section, _, name = key.partition(".")
        names.setdefault(section, {})[name] = before
    for section, former in names.items():
        settings: Section = getattr(config, section)
        unset = {k: v for k, v in former.items() if k not in settings.model_fields_set}
        if unset:
            yield section, settings.model_copy(update=unset)


def _as_begun(reward: RewardConfig, written: int) -> RewardConfig:
    former = _before_of_reward(reward.type, written)
    unset = {k: v for k, v in former.items() if k not in reward.model_fields_set}
    return reward.model_copy(update=unset) if unset else reward


def _before(former: Former, written: int) -> dict[str, Any]:
    """What each setting was in the format ``written``, where it is another today."""
    values: dict[str, Any] = {}
    for changed_in, before in former.items():
        if written < changed_in:
            values |= before  # an older value replaces a newer one
    return values


def _before_of_reward(kind: Any, written: int) -> dict[str, Any]:
    return _before(FORMER_OF_REWARDS.get(kind, {}) if isinstance(kind, str) else {}, written)
