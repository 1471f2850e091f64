"""A row of its own for every sequence: the way that works for every model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal

import torch
from torch import Tensor

from remote_trainer.inference.lm_head import numbers_of
from remote_trainer.inference.plain_forward import plain_logits
from remote_trainer.records import ScoreRequest, TokenIds

# N = rows of one batch, L = padded length, K = positions kept, T = target tokens, V = vocabulary

Side = Literal["left", "right"]

Answers = list[tuple[int, tuple[float, ...]]]
"""(index of the request, its numbers)"""


@dataclass(frozen=True)
class _Row:
    """One row of a pass: ids to read, and the requests answered from them."""

    ids: TokenIds
    readers: tuple[int, ...]
    """Requests whose inputs are these ids or a beginning of them."""
    kept: int
    """Positions at the end whose logits are needed."""


def padded_scores(
    model: Any,
    requests: Sequence[ScoreRequest],
    indices: list[int],
    pad_id: int,
    max_tokens: int,
    padded_on: Side = "left",
) -> Iterator[Answers]:
    """Answers to some of the requests, batch by batch of at most ``max_tokens`` padded tokens."""
    for batch in _batches(_rows(requests, indices), max_tokens):
        yield list(_score_batch(model, requests, batch, pad_id, padded_on))


def _rows(requests: Sequence[ScoreRequest], indices: list[int]) -> list[_Row]:
    """The fewest rows that hold all inputs: what begins another row rides along in it."""
    rows: list[_Row] = []
    ids: TokenIds = ()
    readers: list[int] = []
    # In falling order whatever begins another row comes right behind it.
    for i in sorted(indices, key=lambda i: requests[i].inputs, reverse=True):
        inputs = requests[i].inputs
        if readers and inputs != ids[: len(inputs)]:
            rows.append(_row(requests, ids, readers))
            readers = []
        if not readers:
            ids = inputs
        readers.append(i)
    if readers:
        rows.append(_row(requests, ids, readers))
    return rows


def _row(requests: Sequence[ScoreRequest], ids: TokenIds, readers: list[int]) -> _Row:
    first = min(len(requests[i].context) for i in readers)
    return _Row(ids, tuple(readers), kept=len(ids) - first + 1)


def _batches(rows: list[_Row], max_tokens: int) -> Iterator[list[_Row]]:
    """Rows of like length together, longest first, so that memory peaks at once if at all."""
    batch: list[_Row] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        if batch and (len(batch) + 1) * len(batch[0].ids) > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _score_batch(
    model: Any,
    requests: Sequence[ScoreRequest],
    rows: Sequence[_Row],
    pad_id: int,
    padded_on: Side,
) -> Iterator[tuple[int, tuple[float, ...]]]:
    ids_NL, mask_NL, positions_NL = padded(
        [row.ids for row in rows], pad_id, model.device, padded_on
    )
    length = ids_NL.shape[1]
    # Column of each row's first position that is needed; on the left all rows end together.
    starts = [(length if padded_on == "left" else len(row.ids)) - row.kept for row in rows]
    begin = min(starts)
    logits_NKV = plain_logits(
        model,
        length - begin,
        input_ids=ids_NL,
        attention_mask=mask_NL,
        position_ids=positions_NL,
        use_cache=False,
    )
    targets = [requests[i].target for row in rows for i in row.readers]
    target = torch.tensor(list(chain.from_iterable(targets)), device=ids_NL.device)
    target_of = iter(torch.split(target, [len(each) for each in targets]))
    found: list[tuple[int, Tensor]] = []
    for logits_KV, row, start in zip(logits_NKV, rows, starts, strict=True):
        logits_KV = logits_KV[start - begin :][: row.kept]
        offset = len(row.ids) - row.kept  # id that the first kept position has just read
        for i in row.readers:
            first = len(requests[i].context) - 1 - offset
            logits_TV = logits_KV[first : first + len(requests[i].target)]
            target_T = next(target_of)
            found.append((i, numbers_of(logits_TV, target_T, requests[i].measure)))
    values = iter(torch.cat([numbers_T for _, numbers_T in found]).tolist())
    for i, numbers_T in found:
        yield i, tuple(islice(values, len(numbers_T)))


def padded(
    rows: Sequence[TokenIds], pad_id: int, device: torch.device, padded_on: Side
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and position ids, each (N, L)."""
    length = max(len(row) for row in rows)
    both_2NL = torch.zeros((2, len(rows), length), dtype=torch.long)
    both_2NL[0] = pad_id
    for i, row in enumerate(rows):
        start = length - len(row) if padded_on == "left" else 0
        both_2NL[0, i, start : start + len(row)] = torch.tensor(row)
        both_2NL[1, i, start : start + len(row)] = 1
    ids_NL, mask_NL = both_2NL.to(device)  # one transfer
    return ids_NL, mask_NL, (mask_NL.cumsum(dim=1) - 1).clamp(min=0)
