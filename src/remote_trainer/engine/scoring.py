"""Log-probabilities of given ids: no gradient, bounded batches, model left as it was found."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from remote_trainer.records import LogprobRequest, TokenIds

# N = rows of one batch, L = padded length, T = target tokens, V = vocabulary


@contextlib.contextmanager
def scoring_mode(model: Any) -> Iterator[None]:
    """Evaluation mode without gradient; the previous mode comes back, also after an error."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def score_requests(
    model: Any, requests: Sequence[LogprobRequest], pad_id: int, max_tokens_per_batch: int
) -> list[tuple[float, ...]]:
    """Log p of each request's targets in nats at temperature 1, in the order asked.

    Batches hold at most ``max_tokens_per_batch`` padded tokens (a longer single row goes alone).
    """
    scores: list[tuple[float, ...]] = [()] * len(requests)
    with scoring_mode(model):
        for scored_by, indices in _by_scorer(requests):
            with _adapter_off(model) if scored_by == "reference" else contextlib.nullcontext():
                for batch in _batches(requests, indices, max_tokens_per_batch):
                    rows = [requests[i] for i in batch]
                    for i, row in zip(batch, _score_batch(model, rows, pad_id), strict=True):
                        scores[i] = row
    return scores


def _by_scorer(requests: Sequence[LogprobRequest]) -> Iterator[tuple[str, list[int]]]:
    asked = [i for i, request in enumerate(requests) if request.target]
    asked.sort(key=lambda i: requests[i].scored_by)
    for scored_by, indices in groupby(asked, key=lambda i: requests[i].scored_by):
        yield scored_by, list(indices)


def _batches(
    requests: Sequence[LogprobRequest], indices: list[int], max_tokens: int
) -> Iterator[list[int]]:
    """Rows of like length together, longest first, so that memory peaks at once if at all."""
    batch: list[int] = []
    width = 0
    for i in sorted(indices, key=lambda i: -len(_inputs(requests[i]))):
        if batch and (len(batch) + 1) * width > max_tokens:
            yield batch
            batch = []
        if not batch:
            width = len(_inputs(requests[i]))
        batch.append(i)
    if batch:
        yield batch


def _inputs(request: LogprobRequest) -> TokenIds:
    """Ids the model must see: everything in front of the last target."""
    return request.context + request.continuation[: len(request.target) - 1]


def _score_batch(
    model: Any, rows: Sequence[LogprobRequest], pad_id: int
) -> Iterator[tuple[float, ...]]:
    inputs = [_inputs(row) for row in rows]
    ids_NL, mask_NL, positions_NL = left_padded(inputs, pad_id, model.device)
    longest = max(len(row.target) for row in rows)
    # On the left padding makes all targets end in the last column, whatever the row's length.
    logits_NTV = model(
        input_ids=ids_NL,
        attention_mask=mask_NL,
        position_ids=positions_NL,
        logits_to_keep=longest,
        use_cache=False,
    ).logits
    for logits_TV, row in zip(logits_NTV, rows, strict=True):
        yield tuple(_target_logprobs(logits_TV[-len(row.target) :], row.target).tolist())


def left_padded(
    rows: Sequence[TokenIds], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and position ids, each (N, L), padded on the left."""
    length = max(len(row) for row in rows)
    ids_NL = torch.full((len(rows), length), pad_id, dtype=torch.long)
    mask_NL = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        ids_NL[i, length - len(row) :] = torch.tensor(row)
        mask_NL[i, length - len(row) :] = 1
    positions_NL = (mask_NL.cumsum(dim=1) - 1).clamp(min=0)
    return ids_NL.to(device), mask_NL.to(device), positions_NL.to(device)


def _target_logprobs(logits_TV: Tensor, target: TokenIds) -> Tensor:
    """Log p of ``target``, (T,), in float32: bf16 would lose the differences we live on."""
    logits_TV = logits_TV.float()
    index_T1 = torch.tensor(target, device=logits_TV.device)[:, None]
    return logits_TV.gather(-1, index_T1)[:, 0] - logits_TV.logsumexp(dim=-1)


def _adapter_off(model: Any) -> contextlib.AbstractContextManager[Any]:
    """The reference model: the same weights without the adapter."""
    if hasattr(model, "disable_adapter"):
        off: contextlib.AbstractContextManager[Any] = model.disable_adapter()
        return off
    if any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "scored_by: reference needs a PEFT model, whose adapter can be switched off; "
            "this model trains its own weights and keeps no reference"
        )
    return contextlib.nullcontext()
