"""TRL's GRPOTrainer where completions without signal leave the loss and its divisor."""

from typing import Any

import torch
from trl import GRPOTrainer


class LossMaskTrainer(GRPOTrainer):  # type: ignore[misc]
    """Masked completions change neither weights nor the scale of the others' loss."""

    _buffered_inputs: list[dict[str, Any]] | None
    _metrics: dict[str, dict[str, list[float]]]

    def _mask(self, batch: dict[str, Any], in_loss_B: torch.Tensor) -> dict[str, Any]:
        """Take completions out of a batch: of the loss, its KL term and its divisor."""
        in_loss_B1 = in_loss_B.to(batch["completion_mask"].device)[:, None]
        # TRL multiplies this mask into the loss but not into attention: exactly what is needed.
        mask_BC = batch.get("tool_mask", batch["completion_mask"]) * in_loss_B1
        tokens = (batch["completion_mask"] * mask_BC).sum()
        total = self.accelerator.gather(tokens).sum()
        return {**batch, "tool_mask": mask_BC, "num_items_in_batch": total}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        tokens = (inputs["completion_mask"] * inputs["tool_mask"]).sum()
        alone = self.accelerator.num_processes == 1
        if inputs["num_items_in_batch"] == 0 or (alone and tokens == 0):
            # Without a graph no gradient appears, and the optimizer skips what has none: an
            # update without any signal leaves weights and moments as they are.
            return torch.zeros((), device=tokens.device, requires_grad=True)
        if not alone and self.accelerator.reduce(tokens, reduction="sum") == 0:
            return self._unlogged_loss(model, inputs, *args, **kwargs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _unlogged_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of a micro-step without signal in any process. It is computed, because the
        last one of an update exchanges gradients, but its zeros stay out of the logged means."""
        metrics = self._metrics["train"]
        before = {name: len(values) for name, values in metrics.items()}
        loss = super().compute_loss(*args, **kwargs)
        for name in list(metrics):
            del metrics[name][before.get(name, 0) :]
            if not metrics[name]:
                del metrics[name]  # TRL takes the mean of every list
        return loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss: torch.Tensor = super()._compute_loss(model, inputs) * self._divisor_correction()
        return loss

    def _divisor_correction(self) -> float:
        """Takes filtered completions out of the divisors that TRL does not compute from the mask.

        dapo divides by the tokens of the mask. grpo and dr_grpo divide by the completions of a
        micro-batch, bnpo by the number of micro-batches, filtered or not.
        """
        if self.loss_type == "dapo":
            return 1.0
        assert self._buffered_inputs is not None, "the loss is computed on buffered inputs"
        masks = [batch["completion_mask"] * batch["tool_mask"] for batch in self._buffered_inputs]
        rows = [mask.any(dim=1) for mask in masks]
        counted = (
            torch.stack([r.any() for r in rows]) if self.loss_type == "bnpo" else torch.cat(rows)
        )
        device = self.accelerator.device
        both = torch.tensor([counted.numel(), int(counted.sum())], device=device)
        of_all, in_loss = self.accelerator.reduce(both, reduction="sum").tolist()
        return float(of_all / max(1, in_loss))
