"""The settings of a config, and how they are read."""

from remote_trainer.config.load import (
    dump_config,
    dump_given,
    load_config,
    load_resolved,
    parse_config,
)
from remote_trainer.config.schema import RunConfig
from remote_trainer.rewards import RewardConfig

__all__ = [
    "RewardConfig",
    "RunConfig",
    "dump_config",
    "dump_given",
    "load_config",
    "load_resolved",
    "parse_config",
]
