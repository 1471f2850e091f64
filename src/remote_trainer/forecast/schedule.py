"""The learning rate of each update, as a share of ``training.learning_rate``."""

import math
from collections.abc import Iterator

from remote_trainer.config import RunConfig


def relative_rates(config: RunConfig, updates: int) -> Iterator[float]:
    """One factor of at least 0 per update: transformers' schedules, in their order."""
    training = config.training
    ratio = float(training.trl.get("warmup_ratio") or 0.0)
    warm_up = training.warmup_steps or math.ceil(updates * ratio)
    for step in range(updates):
        if step < warm_up:
            yield step / warm_up
        else:
            done = (step - warm_up) / max(1, updates - warm_up)
            yield _after_warm_up(training.lr_scheduler_type, done)


def _after_warm_up(scheduler: str, done: float) -> float:
    """``done`` is the share of the updates after the warm-up that are over, 0 to 1."""
    if scheduler == "linear":
        return 1.0 - done
    return (1.0 + math.cos(math.pi * done)) / 2 if scheduler == "cosine" else 1.0
