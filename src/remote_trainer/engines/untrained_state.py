"""The trainer's state before the first update, for reward functions asked outside of it."""

from typing import Any


def untrained_state(updates: int = 1) -> Any:
    """A ``transformers.TrainerState`` at step 0 of a run of ``updates`` updates, so that a share of
    training that is done can be computed from it."""
    from transformers import TrainerState

    return TrainerState(epoch=0.0, max_steps=updates, num_train_epochs=1)
