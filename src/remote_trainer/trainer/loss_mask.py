"""TRL's GRPOTrainer that excludes completions without signal from the loss and its divisor."""

from typing import Any

import torch
from trl import GRPOTrainer

TOKENS = "tokens_in_loss"
"""Key of a micro-batch's list of tokens in the loss, one number a completion."""


class LossMaskTrainer(GRPOTrainer):  # type: ignore[misc]
    """Masked completions change neither weights nor the scale of the others' loss."""

    _buffered_inputs: list[dict[str, Any]] | None
    _metrics: dict[str, dict[str, list[float]]]
    _tokens_of_all: int = 0
    """In the loss of the whole batch, in all processes."""

    def _mask(self, batch: dict[str, Any], in_loss_B: torch.Tensor) -> dict[str, Any]:
        """Exclude completions of a batch from the loss, its KL term and its divisor."""
        in_loss_B1 = in_loss_B.to(batch["completion_mask"].device)[:, None]
        # TRL applies this mask to the loss but not to attention.
        mask_BC = batch.get("tool_mask", batch["completion_mask"]) * in_loss_B1
        tokens_B = (batch["completion_mask"] * mask_BC).sum(dim=1)
        total = self.accelerator.gather(tokens_B.sum()).sum()
        # Asked here once for all micro-steps: every question waits for the device.
        *tokens, self._tokens_of_all = torch.cat([tokens_B, total[None]]).tolist()
        return {**batch, "tool_mask": mask_BC, "num_items_in_batch": total, TOKENS: tokens}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        alone = self.accelerator.num_processes == 1
        tokens = sum(inputs[TOKENS])
        if self._tokens_of_all == 0 or (alone and tokens == 0):
            # Without a graph there are no gradients, and the optimizer skips parameters without
            # one: an update without signal changes neither weights nor moments.
            return torch.zeros((), device=inputs["completion_mask"].device, requires_grad=True)
        if not alone and self._of_all_processes(tokens) == [0]:
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
        """Excludes filtered completions from the divisors that TRL does not compute from the mask.

        dapo divides by the tokens of the mask. grpo and dr_grpo divide by the completions of a
        micro-batch, bnpo by the number of micro-batches, filtered or not.
        """
        if self.loss_type == "dapo":
            return 1.0
        assert self._buffered_inputs is not None, "the loss is computed on buffered inputs"
        counted = [batch[TOKENS] for batch in self._buffered_inputs]
        if self.loss_type != "bnpo":
            counted = [[tokens] for part in counted for tokens in part]
        of_all, in_loss = self._of_all_processes(len(counted), sum(any(part) for part in counted))
        return of_all / max(1, in_loss)

    def _of_all_processes(self, *numbers: int) -> list[int]:
        """Each number summed over the processes; one process asks nothing of its device."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        here = torch.tensor(numbers, device=self.accelerator.device)
        summed: list[int] = self.accelerator.reduce(here, reduction="sum").tolist()
        return summed
