"""Log-probabilities of many sequences at the cost of what is different in them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from remote_trainer.fallback import reason_to_give_up
from remote_trainer.inference.agreement import largest, limit_of, why_apart
from remote_trainer.inference.lm_head import Head, logprobs_and_entropies, token_numbers
from remote_trainer.inference.padded_rows import Answers
from remote_trainer.inference.plain_forward import last_hidden, plain_logits, recomputed
from remote_trainer.inference.prefix_tree import PackedRow, TreeAttention, pack
from remote_trainer.models.attention import no_mask, require_shared, why_not_shared
from remote_trainer.models.dropout import rest
from remote_trainer.models.modes import causal_model, scoring_mode
from remote_trainer.models.quantization import is_in_4bit
from remote_trainer.records import Continuation, Measure, ScoreRequest

# B = sequences, C = longest continuation, L = tokens of a packed row, H = hidden size, N = targets

ROW_TOKENS = 4096


def continuation_logprobs(
    model: Any,
    continuations: Sequence[Continuation],
    width: int,
    temperature: float,
    row_tokens: int | None = None,
    with_entropies: bool = True,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """(log-probs with gradient, entropies without), each (B, ``width``), 0 behind the last id.

    Nats, float32, at ``temperature``; entropies that are not asked for are 0. ``model`` is called
    once per packed row, through whatever wraps it; with ``recompute`` once more for the gradient,
    so that the activations of one row are in memory at once.
    """
    inputs = [c.context + c.ids[:-1] for c in continuations]
    device = next(model.parameters()).device
    places: list[int] = []
    logprobs: list[Tensor] = []
    entropies: list[Tensor] = []
    for row in pack(inputs, row_tokens or ROW_TOKENS):
        predictors: list[int] = []
        targets: list[int] = []
        for b, path in zip(row.sequences, row.paths, strict=True):
            asked = continuations[b]
            predictors += path[len(asked.context) - 1 :] if asked.ids else []
            targets += asked.ids
            places += range(b * width, b * width + len(asked.ids))
        predictor_N, target_N = torch.tensor([predictors, targets], device=device, dtype=torch.long)
        arguments = (model, row, predictor_N, target_N, temperature, with_entropies)
        found = recomputed(_row_numbers, *arguments) if recompute else _row_numbers(*arguments)
        logprobs.append(found[0])
        entropies.append(found[1])
    index_N = torch.tensor(places, device=device)
    shape = (len(continuations), width)

    def spread_out(numbers_N: Tensor) -> Tensor:
        empty = numbers_N.new_zeros(shape[0] * shape[1])
        return empty.scatter(0, index_N, numbers_N).view(shape)

    return spread_out(torch.cat(logprobs)), spread_out(torch.cat(entropies))


def _row_numbers(
    model: Any,
    row: PackedRow,
    predictor_N: Tensor,
    target_N: Tensor,
    temperature: float,
    with_entropies: bool,
) -> tuple[Tensor, Tensor]:
    hidden_LH, head = packed_hidden(model, row)
    hidden_NH = hidden_at(hidden_LH, predictor_N)
    return logprobs_and_entropies(hidden_NH, head, target_N, temperature, with_entropies)


def packed_scores(
    model: Any, requests: Sequence[ScoreRequest], indices: list[int], max_tokens: int
) -> Iterator[Answers]:
    """Answers to some of the requests, packed row by packed row of at most ``max_tokens``."""
    inputs = [requests[i].inputs for i in indices]
    for row in pack(inputs, min(ROW_TOKENS, max_tokens)):
        hidden_LH, head = packed_hidden(model, row)
        asked: dict[Measure, list[tuple[int, list[int]]]] = {}
        for place, path in zip(row.sequences, row.paths, strict=True):
            request = requests[indices[place]]
            predictors = path[len(request.context) - 1 :]
            asked.setdefault(request.measure, []).append((indices[place], predictors))
        answers: Answers = []
        for measure, readers in asked.items():
            predictors = [p for _, places in readers for p in places]
            targets = [t for i, _ in readers for t in requests[i].target]
            predictor_N, target_N = torch.tensor([predictors, targets], device=hidden_LH.device)
            numbers_N = token_numbers(hidden_at(hidden_LH, predictor_N), head, target_N, measure)
            values = iter(numbers_N.tolist())
            answers += [(i, tuple(islice(values, len(places)))) for i, places in readers]
        yield answers


def packed_hidden(model: Any, row: PackedRow) -> tuple[Tensor, Head]:
    """(last hidden states (L, H), the head) of one packed row.

    The pass goes through ``model`` itself, so that wrappers see it; the hidden states are caught
    before the head, which runs on a single position.
    """
    causal = causal_model(model)
    require_shared(causal)
    device = causal.device
    ids_1L, depths_1L = torch.tensor([[row.ids], [row.depths]], device=device)
    hidden_1LH = last_hidden(
        model,
        input_ids=ids_1L,
        position_ids=depths_1L,
        attention_mask=no_mask(device),
        shared=TreeAttention(row, device),
        use_cache=False,
    )
    return hidden_1LH[0], Head.of(causal)


def hidden_at(hidden_LH: Tensor, place_N: Tensor) -> Tensor:
    """The hidden states at some places, (N, H); a place may be asked for more than once.

    A prompt's last token predicts the first one of all its completions, so gradients meet there.
    On a CPU the gradient of indexing adds them in the order in which threads come by, and that of
    `index_select` in order; on a GPU it is indexing that sorts them first.
    """
    return hidden_LH[place_N] if hidden_LH.is_cuda else hidden_LH.index_select(0, place_N)


def packing_blocker(model: Any, rows: Sequence[Continuation], training: bool = False) -> str | None:
    """Why this model's rows may not share a prefix; None where packing is exact.

    Reads the config for attention that looks at distances or keeps a state, then compares packed
    rows with rows of their own on ``rows``, which should be real ones and share a context: in
    evaluation mode or, for ``training``, in training mode with dropout modules at rest.
    """
    causal = causal_model(model)
    reason = why_not_shared(causal)
    if reason is not None:
        return reason
    try:
        with scoring_mode(model):
            if training:
                model.train()
                rest(model)
            gap = _largest_gap(model, rows)
    except Exception as error:
        return reason_to_give_up(error, "it does not take packed rows")
    return why_apart(gap, limit_of(causal.dtype, in_4bit=is_in_4bit(causal)))


def _largest_gap(model: Any, rows: Sequence[Continuation]) -> float:
    """Largest mean difference of a row's log-probs, packed against alone."""
    width = max(len(row.ids) for row in rows)
    packed, _ = continuation_logprobs(model, rows, width, temperature=1.0)
    gaps: list[float] = []
    for row, logprobs_C in zip(rows, packed, strict=True):
        length = len(row.ids)
        ids = torch.tensor([row.context + row.ids], device=packed.device)
        logits_CV = plain_logits(model, length + 1, input_ids=ids, use_cache=False)[0, :-1]
        alone_CV = logits_CV.float().log_softmax(dim=-1)
        alone_C = alone_CV.gather(-1, ids[0, -length:, None])[:, 0]
        gaps.append((logprobs_C[:length] - alone_C).abs().mean().item())
    return largest(gaps)
