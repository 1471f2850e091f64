"""Stops training before gradients that are not finite reach the weights."""

from typing import Any

import torch
from transformers import TrainerCallback

from remote_trainer.errors import NonFiniteLossError
from remote_trainer.faults import fault_point


class FiniteGradients(TrainerCallback):  # type: ignore[misc]
    """Raises NonFiniteLossError before the optimizer uses a NaN or infinite gradient."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        fault_point("update:gradients")
        if args.fp16:
            # The gradient scaler handles overflows: it skips the update and lowers the loss scale.
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # One synchronisation with the device for all gradients instead of one for each.
        if gradients and not torch.stack([g.isfinite().all() for g in gradients]).all():
            raise NonFiniteLossError(
                f"update {state.global_step + 1}: a gradient is not finite; the weights were not "
                "changed. Lower training.learning_rate and resume from the last checkpoint"
            )
