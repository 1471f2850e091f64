"""How rows go through a model: the fastest way that finds what its plain forward pass finds."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from remote_trainer.cpu.prepacked_linear import restore_linears
from remote_trainer.cpu.prepacked_lora import restore_adapters
from remote_trainer.fallback import reason_to_give_up
from remote_trainer.inference.own_rows import chunking_blocker, in_parts, row_logprobs
from remote_trainer.inference.packed_rows import continuation_logprobs, packing_blocker
from remote_trainer.inference.scoring import score_requests
from remote_trainer.models.modes import is_unsloths
from remote_trainer.progress import OnProgress
from remote_trainer.records import Continuation, ScoreRequest

logger = logging.getLogger(__name__)

T = TypeVar("T")

# N = rows, C = longest continuation

ROWS_COMPARED = 8
ON = "on"


class RowPaths:
    """Finds out once how a model can be asked, and steps down where a way fails.

    Ways are given up in this order: sharing of beginnings (looked at apart for training mode and
    for evaluation mode), logits in chunks, ordered weights. What is left is transformers' own.
    """

    def __init__(self, model: Any) -> None:
        self.told: dict[str, str] = {}
        """Way -> `ON`, or why it is not taken."""
        self._packs: dict[bool, bool] = {}
        self._chunks: bool | None = None
        # A caller's own model may be Unsloth's, which hands out no hidden states.
        self._knows_head = not is_unsloths(model)

    @property
    def reasons(self) -> dict[str, str]:
        """Way -> why it is not taken."""
        return {way: reason for way, reason in self.told.items() if reason != ON}

    def shares(self, model: Any, rows: Sequence[Continuation], training: bool) -> bool:
        """Whether rows that begin alike may share a pass; found out once, on the first rows."""
        if training not in self._packs:
            real = [row for row in rows if row.ids][:ROWS_COMPARED]
            if not real:
                return False
            reason = packing_blocker(model, real, training)
            self._packs[training] = True
            self._see("packed", training, reason)
        return self._packs[training]

    def stop_sharing(self, training: bool, error: Exception) -> None:
        """Rows of this mode go alone from now on; raises what a slower way would not mend."""
        self._see("packed", training, reason_to_give_up(error))

    def logprobs(
        self,
        model: Any,
        rows: Sequence[Continuation],
        width: int,
        temperature: float,
        pad_id: int,
        with_entropies: bool,
        limit: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(log-probs with gradient, entropies without), each (N, ``width``), nats, float32.

        With a ``limit`` of tokens at once, activations are computed again for the gradient.
        """
        training = bool(model.training)
        if self.shares(model, rows, training):
            try:
                return continuation_logprobs(
                    model, rows, width, temperature, limit, with_entropies, recompute=bool(limit)
                )
            except Exception as error:
                self.stop_sharing(training, error)

        def alone(chunked: bool) -> tuple[Tensor, Tensor]:
            compute = partial(row_logprobs, chunked=chunked, with_entropies=with_entropies)
            if limit is None:
                return compute(model, rows, width, temperature, pad_id)
            return in_parts(compute, model, rows, width, temperature, pad_id, most_tokens=limit)

        if self._in_chunks(model, rows, pad_id):
            try:
                return alone(chunked=True)
            except Exception as error:
                self._stop_chunks(reason_to_give_up(error))
        return self._or_unpacked(model, lambda: alone(chunked=False))

    def score(
        self,
        model: Any,
        requests: Sequence[ScoreRequest],
        pad_id: int,
        max_tokens_per_batch: int,
        on_progress: OnProgress | None = None,
    ) -> list[tuple[float, ...]]:
        """`scoring.score_requests` by the fastest way."""

        def scores(packed: bool) -> list[tuple[float, ...]]:
            return score_requests(
                model,
                requests,
                pad_id,
                max_tokens_per_batch,
                on_progress,
                packed=packed,
                # Behind a row padding is harmless for every kind of model.
                padded_on="right",
            )

        rows = [Continuation(request.context, request.continuation) for request in requests]
        if self.shares(model, rows, False):
            try:
                return scores(packed=True)
            except Exception as error:
                self.stop_sharing(False, error)
        return self._or_unpacked(model, lambda: scores(packed=False))

    def _in_chunks(self, model: Any, rows: Sequence[Continuation], pad_id: int) -> bool:
        if self._chunks is None:
            real = [row for row in rows if row.ids][:ROWS_COMPARED]
            if not real or not self._knows_head:
                return False
            reason = chunking_blocker(model, real, pad_id)
            self._chunks, self.told["logits in chunks"] = True, ON
            if reason is not None:
                self._stop_chunks(reason)
        return self._chunks

    def _stop_chunks(self, reason: str) -> None:
        self._chunks, self.told["logits in chunks"] = False, reason
        logger.warning("the logits of whole rows are in memory at once: %s", reason)

    def _or_unpacked(self, model: Any, work: Callable[[], T]) -> T:
        """``work()``, a second time without ordered weights where it fails with them."""
        try:
            return work()
        except Exception as error:
            reason = reason_to_give_up(error)
            if not (restore_adapters(model) | restore_linears(model)):
                raise
            self.told["ordered weights"] = reason
            logger.warning("linear layers run as torch's own: %s", reason)
            return work()

    def _see(self, way: str, training: bool, reason: str | None) -> None:
        mode = "training" if training else "scoring"
        self.told[f"{way} rows, {mode}"] = reason or ON
        if reason is None:
            return
        self._packs[training] = False
        logger.warning("every completion costs its prompt again, %s: %s", mode, reason)
