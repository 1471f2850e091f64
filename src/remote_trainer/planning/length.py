"""The number of updates of a run."""

from math import ceil

from remote_trainer.config import RunConfig
from remote_trainer.processes import process_count


def updates_per_epoch(config: RunConfig, rows: int) -> int:
    """Updates of one epoch over ``rows`` training rows."""
    training = config.training
    prompts = training.prompts_per_update * process_count()
    return max(1, rows // prompts) * training.num_iterations


def updates_of(config: RunConfig, rows: int) -> int:
    """Updates of the whole run."""
    training = config.training
    passes = training.num_train_epochs or 1.0
    return training.max_steps or ceil(updates_per_epoch(config, rows) * passes)
