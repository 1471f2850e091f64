"""The trainer's state before the first update, for reward functions called outside of training."""

from typing import Any


def untrained_state(updates: int = 1) -> Any:
    """A ``transformers.TrainerState`` at step 0 of a run of ``updates`` updates, from which reward
    functions can compute the progress of training."""
    from transformers import TrainerState

    return TrainerState(epoch=0.0, max_steps=updates, num_train_epochs=1)
