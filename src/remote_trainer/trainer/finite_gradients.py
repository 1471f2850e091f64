"""No number that is not finite reaches the weights."""

from typing import Any

from transformers import TrainerCallback

from remote_trainer.errors import NonFiniteLossError


class FiniteGradients(TrainerCallback):  # type: ignore[misc]
    """Stops before the optimizer turns a NaN gradient into NaN weights."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        if args.fp16:
            # Its loss is scaled by trial: where that was too much the scaler leaves the update out
            # and scales less from then on.
            return
        gradients = (p.grad for p in model.parameters() if p.grad is not None)
        if not all(gradient.isfinite().all() for gradient in gradients):
            raise NonFiniteLossError(
                f"update {state.global_step + 1}: a gradient is not finite; the weights were not "
                "changed. Lower training.learning_rate and go on from the last checkpoint"
            )
