"""TRL's GRPOTrainer with one forward pass over all completions of a prompt."""

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

from remote_trainer.activity import ACTIVITY
from remote_trainer.engines.protocol import Backend
from remote_trainer.errors import OutOfMemoryError
from remote_trainer.fallback import is_out_of_memory
from remote_trainer.faults import fault_point
from remote_trainer.models.dropout import drops_out
from remote_trainer.models.modes import adapter_is_off
from remote_trainer.records import Continuation

# B = completions of a batch, P = longest prompt, C = longest completion

ROWS = "rows"
"""Key of a micro-batch's `Continuation`s; TRL splits lists as it splits tensors."""


class SharedPrefixTrainer(GRPOTrainer):  # type: ignore[misc]
    """Old, reference and policy log-probs from packed rows; micro-batches of whole groups.

    Subclasses set `_backend` before they call ``__init__``.
    """

    _backend: Backend
    _buffered_inputs: list[dict[str, Any]] | None
    _early_pass: tuple[tuple[Continuation, ...], Any] | None = None
    """Rows of the next update and the result of its forward pass, with gradients."""
    _rows_of_loss: Sequence[Continuation] = ()
    """Of the micro-batch whose loss is being computed; empty where they are not known."""
    _inputs: dict[str, Any] = {}  # noqa: RUF012 (replaced, never changed)
    _ready: int | None = None
    """The micro-step of `_inputs`."""
    _logged: Mapping[str, int] = {}
    """Number of values of TRL's metrics before the loss was computed."""

    def _send_telemetry(self) -> None:
        """Sends nothing, ever; TRL would send the trainer's kind, model and device."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """One micro-step; done again with fewer tokens at once where memory does not suffice."""
        if self.accelerator.num_processes > 1:  # gradients are exchanged between processes in it
            return super().training_step(*args, **kwargs)
        return self._backend.budget.run(lambda _: self._attempt(*args, **kwargs))

    def _attempt(self, *args: Any, **kwargs: Any) -> Any:
        """A micro-step that leaves no trace if it fails with its inputs at hand."""
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        earlier = [p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        try:
            done = super().training_step(*args, **kwargs)
        except Exception as error:
            if is_out_of_memory(error) and self._ready != self._step:
                # Completions were not judged to the end; doing that again would count them twice.
                phase = ACTIVITY.failed_in(error) or ACTIVITY.phase
                raise OutOfMemoryError.with_advice(phase, str(error)) from None
            self._early_pass = None
            for name, values in self._metrics["train"].items():
                del values[self._logged.get(name, 0) :]
            for parameter, grad in zip(parameters, earlier, strict=True):
                parameter.grad = grad
            raise
        for parameter, grad in zip(parameters, earlier, strict=True):
            if grad is not None:  # the same sum as autograd's, which adds to what is there
                parameter.grad = grad if parameter.grad is None else grad.add_(parameter.grad)
        return done

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Stock; a point for faults comes first."""
        fault_point("update")
        return super().compute_loss(*args, **kwargs)

    def _reference_logprobs(self, rows: Sequence[Continuation], width: int) -> torch.Tensor | None:
        """Log-probs of the reference model at the sampling temperature, (B, C); for subclasses.

        Called with the adapter disabled. None: the usual forward pass computes them.
        """
        return None

    def _on_policy_logprobs(self, rows: Sequence[Continuation], logps_BC: torch.Tensor) -> None:
        """Called with the policy log-probs of the loss, at the sampling temperature."""

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """Our log-probs, unless the engine replaces TRL's method with its own."""
        if self._backend.rewrites_trl:
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)
        return self._logps_and_entropies(*args, **kwargs)

    def _logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Log-probs of rows, computed by the engine's fastest path."""
        rows = self._rows_of_loss or continuations(input_ids, attention_mask, logits_to_keep)
        if (
            torch.is_grad_enabled()
            and self._early_pass is not None
            and self._early_pass[0] == tuple(rows)
        ):
            (_, found), self._early_pass = self._early_pass, None
            return found
        if not torch.is_grad_enabled() and not compute_entropy and adapter_is_off(self.model):
            reference_BC = self._reference_logprobs(rows, logits_to_keep)
            if reference_BC is not None:
                return reference_BC, None, None
        # An entropy bonus needs the entropy's gradient, a router's loss more than log-probs.
        if compute_aux_loss or self._entropy_bonus_enabled:
            found = super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                compute_aux_loss=compute_aux_loss,
                **kwargs,
            )
        else:
            logps, entropies = self._backend.logprobs(
                model, rows, logits_to_keep, self.temperature, with_entropies=compute_entropy
            )
            found = (logps, entropies if compute_entropy else None, None)
        if torch.is_grad_enabled():
            self._on_policy_logprobs(rows, found[0].detach())
        return found

    def _policy_logprobs(self, rows: Sequence[Continuation]) -> torch.Tensor | None:
        """Log-probs of the next update's forward pass, run before the rewards; (B, C), no gradient.

        The update reuses the pass, so rewards that need the policy's log-probs cost nothing. None
        if the update is more than this one pass: several micro-steps would keep all their
        activations at once.
        """
        alone = self.accelerator.num_processes == 1 and self.args.steps_per_generation == 1
        same = self.num_iterations == 1 and self.temperature == 1 and not drops_out(self.model)
        # Both need more than log-probs; see `_logps_and_entropies`.
        needs_more = self._entropy_bonus_enabled or getattr(self, "aux_loss_enabled", False)
        if not alone or not same or needs_more:
            return None
        if not self._backend.shares_prefixes(rows, self.model.training):
            return None
        width = max(1, *(len(row.ids) for row in rows))
        with torch.enable_grad():
            found = self._backend.logprobs(self.model_wrapped, rows, width, self.temperature)
        self._early_pass = tuple(rows), (*found, None)
        self._on_policy_logprobs(rows, found[0].detach())
        logps_BC: torch.Tensor = found[0].detach()
        return logps_BC

    def _prepare_inputs(self, generation_batch: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch of a micro-step; made once, also where the micro-step is done again."""
        if self._ready != self._step:
            self._inputs, self._ready = self._new_inputs(generation_batch), self._step
            self._logged = {name: len(each) for name, each in self._metrics["train"].items()}
        return self._inputs

    def _new_inputs(self, generation_batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Micro-batches of whole groups; TRL would split the completions of a prompt among them."""
        if self._backend.rewrites_trl:  # it counts padding that is trimmed away here
            stock: dict[str, Any] = super()._prepare_inputs(generation_batch)
            return stock
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = self._generate_and_score_completions(generation_batch)
            # Read once for all micro-steps: every read waits for the device.
            batch[ROWS] = continuations(
                torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                batch["completion_ids"].size(1),
            )
            self._buffered_inputs = [trimmed(p) for p in split_tensor_dict(batch, parts)]
        inputs: dict[str, Any] = self._buffered_inputs[self._step % parts]
        return inputs

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self._rows_of_loss = inputs.get(ROWS, ())
        try:
            loss: torch.Tensor = super()._compute_loss(model, inputs)
        finally:
            self._rows_of_loss = ()
        return loss


def trimmed(batch: dict[str, Any]) -> dict[str, Any]:
    """A micro-batch without the columns that are padding in all of its rows."""
    prompt = max(len(row.context) for row in batch[ROWS])
    completion = max(1, *(len(row.ids) for row in batch[ROWS]))
    return {
        name: value[:, value.size(1) - prompt :]
        if name.startswith("prompt_")
        else value[:, :completion]
        if isinstance(value, torch.Tensor) and value.dim() > 1
        else value
        for name, value in batch.items()
    }


def continuations(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, logits_to_keep: int
) -> list[Continuation]:
    """The rows of a padded batch: prompt and completion ids without their padding."""
    border = input_ids.size(1) - logits_to_keep
    ids_BL, seen_BL = torch.stack([input_ids, attention_mask.to(input_ids)]).tolist()
    return [
        Continuation(
            context=tuple(compress(ids[:border], seen[:border])),
            ids=tuple(compress(ids[border:], seen[border:])),
        )
        for ids, seen in zip(ids_BL, seen_BL, strict=True)
    ]
