"""Log-probabilities with gradient from a row of its own for every sequence: for every model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from remote_trainer.fallback import reason_to_give_up
from remote_trainer.inference.agreement import limit_of, why_apart
from remote_trainer.inference.lm_head import Head, logprobs_and_entropies
from remote_trainer.inference.padded_rows import padded
from remote_trainer.inference.plain_forward import last_hidden, plain_logits, recomputed
from remote_trainer.models.modes import causal_model, scoring_mode
from remote_trainer.models.quantization import is_in_4bit
from remote_trainer.records import Continuation

# N = rows, L = padded length, C = longest continuation, K = positions kept, V = vocabulary,
# M = ids asked for


def row_logprobs(
    model: Any,
    rows: Sequence[Continuation],
    width: int,
    temperature: float,
    pad_id: int,
    *,
    chunked: bool,
    with_entropies: bool = True,
) -> tuple[Tensor, Tensor]:
    """(log-probs with gradient, entropies without), each (N, ``width``), 0 behind the last id.

    Nats, float32, at ``temperature``. With ``chunked`` the logits of all positions are never there
    at once; else they are the model's own, whatever it does to make them. Rows are padded behind,
    where no kind of model looks before it has read the row.
    """
    device = next(model.parameters()).device
    ids_NL, mask_NL, positions_NL = padded(
        [row.context + row.ids for row in rows], pad_id, device, "right"
    )
    inputs = {
        "input_ids": ids_NL,
        "attention_mask": mask_NL,
        "position_ids": positions_NL,
        "use_cache": False,
    }
    row_M, place_M, goal_M = _places(rows, width, device)
    target_M = ids_NL[row_M, place_M + 1]
    if chunked:
        hidden_NLH = last_hidden(model, **inputs)
        found = logprobs_and_entropies(
            hidden_NLH[row_M, place_M],
            Head.of(causal_model(model)),
            target_M,
            temperature,
            with_entropies,
        )
    else:
        length = ids_NL.shape[1]
        kept = length - min(len(row.context) for row in rows) + 1
        logits_NKV = plain_logits(model, kept, **inputs)
        found = _numbers(
            logits_NKV[row_M, place_M - (length - kept)], target_M, temperature, with_entropies
        )

    def spread_out(numbers_M: Tensor) -> Tensor:
        return numbers_M.new_zeros(len(rows) * width).scatter(0, goal_M, numbers_M).view(-1, width)

    return spread_out(found[0]), spread_out(found[1])


def in_parts(
    compute: Callable[..., tuple[Tensor, Tensor]],
    model: Any,
    rows: Sequence[Continuation],
    *settings: Any,
    most_tokens: int,
) -> tuple[Tensor, Tensor]:
    """``compute``, which is `row_logprobs`, with at most ``most_tokens`` padded tokens (or one row)
    in memory at once: activations of each part are computed again for the gradient."""
    longest = max(len(row.context) + len(row.ids) for row in rows)
    size = max(1, most_tokens // longest)
    found = [
        recomputed(compute, model, rows[i : i + size], *settings) for i in range(0, len(rows), size)
    ]
    logprobs, entropies = zip(*found, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _places(
    rows: Sequence[Continuation], width: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Of every id asked for: its row, what predicts it there, and its place in the answer; (M,)."""
    found: list[list[int]] = [[], [], []]
    for n, row in enumerate(rows):
        steps = range(len(row.ids))
        found[0] += [n] * len(row.ids)
        found[1] += [len(row.context) - 1 + t for t in steps]
        found[2] += [n * width + t for t in steps]
    row_M, place_M, goal_M = torch.tensor(found, device=device, dtype=torch.long)
    return row_M, place_M, goal_M


def _numbers(
    logits_MV: Tensor, target_M: Tensor, temperature: float, with_entropies: bool
) -> tuple[Tensor, Tensor]:
    logprobs_MV = (logits_MV.float() / temperature).log_softmax(dim=-1)
    logprob_M = logprobs_MV.gather(-1, target_M[:, None])[:, 0]
    with torch.no_grad():
        entropy_M = torch.zeros_like(logprob_M)
        if with_entropies:
            entropy_M = -(logprobs_MV.exp() * logprobs_MV).sum(dim=-1)
    return logprob_M, entropy_M


def chunking_blocker(model: Any, rows: Sequence[Continuation], pad_id: int) -> str | None:
    """Why the logits of this model's rows must be its own; None where chunks give the same."""
    width = max(len(row.ids) for row in rows)
    found = []
    try:
        with scoring_mode(model):
            for chunked in (True, False):
                logprobs_NC, _ = row_logprobs(
                    model, rows, width, 1.0, pad_id, chunked=chunked, with_entropies=False
                )
                found.append(logprobs_NC)
    except Exception as error:
        return reason_to_give_up(error, "its head cannot be used apart from it")
    gap = float((found[0] - found[1]).abs().max())
    causal = causal_model(model)
    return why_apart(gap, limit_of(causal.dtype, in_4bit=is_in_4bit(causal)))
