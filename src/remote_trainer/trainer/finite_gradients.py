"""No number that is not finite reaches the weights."""

from typing import Any

import torch
from transformers import TrainerCallback

from remote_trainer.errors import NonFiniteLossError
from remote_trainer.faults import fault_point


class FiniteGradients(TrainerCallback):  # type: ignore[misc]
    """Stops before the optimizer turns a NaN gradient into NaN weights."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        fault_point("update:gradients")
        if args.fp16:
            # Its loss is scaled by trial: where that was too much the scaler leaves the update out
            # and scales less from then on.
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # Asked one by one, each tensor would make the program wait for the device.
        if gradients and not torch.stack([g.isfinite().all() for g in gradients]).all():
            raise NonFiniteLossError(
                f"update {state.global_step + 1}: a gradient is not finite; the weights were not "
                "changed. Lower training.learning_rate and go on from the last checkpoint"
            )
