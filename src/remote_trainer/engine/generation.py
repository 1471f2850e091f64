"""Completions: each prompt is read once, all rows decode together, and what has ended leaves."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import DynamicCache

from remote_trainer.engine.codec import Codec
from remote_trainer.engine.model_state import scoring_mode
from remote_trainer.engine.padded_rows import left_padded
from remote_trainer.records import Generation, Sampling, TokenIds

# P = distinct prompts, N = rows that still decode, L = positions seen so far, V = vocabulary


def generate(
    model: Any,
    codec: Codec,
    prompts: Sequence[TokenIds],
    sampling: Sampling,
    max_tokens_per_batch: int,
) -> list[Generation]:
    """One completion per prompt, in order.

    Every completion has a random stream of its own, of ``sampling.seed``, its prompt and its place
    among the completions of that prompt, so it does not depend on what is decoded beside it. At
    most ``max_tokens_per_batch`` tokens, prompts and completions, are in memory at once.
    """
    generations: list[Generation | None] = [None] * len(prompts)
    streams = _streams(prompts, sampling)
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), prompts[i]))
    with scoring_mode(model):
        while order:
            width = len(prompts[order[0]]) + sampling.max_new_tokens
            size = max(1, max_tokens_per_batch // width)
            batch, order = order[:size], order[size:]
            rows = [_Row(i, streams[i]) for i in batch]
            _decode(model, codec, [prompts[i] for i in batch], rows, sampling)
            for row in rows:
                ended = bool(row.ids) and row.ids[-1] in codec.eos_ids
                generations[row.index] = Generation(tuple(row.ids), tuple(row.logprobs), ended)
    return [generation for generation in generations if generation is not None]


@dataclass
class _Row:
    """One completion under way."""

    index: int
    draws: list[float]
    """A uniform number in [0, 1) for each token."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


def _streams(prompts: Sequence[TokenIds], sampling: Sampling) -> list[list[float]]:
    """Random numbers of each completion; none where decoding is greedy."""
    if sampling.temperature == 0:
        return [[] for _ in prompts]
    seen: Counter[TokenIds] = Counter()
    streams = []
    for prompt in prompts:
        name = repr((sampling.seed, prompt, seen[prompt])).encode()
        seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "little", signed=True)
        draws = torch.rand(
            sampling.max_new_tokens,
            generator=torch.Generator().manual_seed(seed),
            dtype=torch.float64,
        )
        streams.append(draws.tolist())
        seen[prompt] += 1
    return streams


def _decode(
    model: Any, codec: Codec, prompts: Sequence[TokenIds], rows: list[_Row], sampling: Sampling
) -> None:
    """Fill ``rows``, one per prompt; equal prompts share their reading."""
    distinct = list(dict.fromkeys(prompts))
    place_N = torch.tensor([distinct.index(prompt) for prompt in prompts], device=model.device)
    ids_PL, mask_PL, positions_PL = left_padded(distinct, codec.pad_id, model.device)
    cache = DynamicCache(config=model.config)
    logits_PV = model(
        input_ids=ids_PL,
        attention_mask=mask_PL,
        position_ids=positions_PL,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    cache.batch_select_indices(place_N)
    logits_NV, mask_NL = logits_PV[place_N], mask_PL[place_N]
    position_N = positions_PL[:, -1][place_N]
    alive = rows
    for step in range(sampling.max_new_tokens):
        token_N = _next_tokens(logits_NV.float(), alive, step, codec, sampling)
        going = [n for n, row in enumerate(alive) if row.ids[-1] not in codec.eos_ids]
        if not going or step + 1 == sampling.max_new_tokens:
            return
        if len(going) < len(alive):
            kept_N = torch.tensor(going, device=model.device)
            cache.batch_select_indices(kept_N)
            token_N, mask_NL, position_N = token_N[kept_N], mask_NL[kept_N], position_N[kept_N]
            alive = [alive[n] for n in going]
        position_N = position_N + 1
        mask_NL = torch.cat([mask_NL, mask_NL.new_ones(len(alive), 1)], dim=1)
        logits_NV = model(
            input_ids=token_N[:, None],
            attention_mask=mask_NL,
            position_ids=position_N[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]


def _next_tokens(
    logits_NV: Tensor, rows: Sequence[_Row], step: int, codec: Codec, sampling: Sampling
) -> Tensor:
    """Draw one id per row and note it with its log-prob at temperature 1."""
    logprobs_NV = logits_NV.log_softmax(dim=-1)
    if step < sampling.min_new_tokens:
        logits_NV = logits_NV.index_fill(
            1, torch.tensor(codec.eos_ids, device=logits_NV.device), float("-inf")
        )
    if sampling.temperature == 0:
        token_N = logits_NV.argmax(dim=-1)
    else:
        draws = [[row.draws[step]] for row in rows]
        token_N = _drawn(_warped(logits_NV, sampling), torch.tensor(draws))
    logprob_N = logprobs_NV.gather(-1, token_N[:, None])[:, 0]
    for row, token, logprob in zip(rows, token_N.tolist(), logprob_N.tolist(), strict=True):
        row.ids.append(token)
        row.logprobs.append(logprob)
    return token_N


def _warped(logits_NV: Tensor, sampling: Sampling) -> Tensor:
    """Temperature, then top-k, then top-p, as transformers orders them."""
    warpers = LogitsProcessorList()
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    warped: Tensor = warpers(None, logits_NV / sampling.temperature)
    return warped


def _drawn(logits_NV: Tensor, draw_N1: Tensor) -> Tensor:
    """The ids at which the cumulated probability passes the draws."""
    cumulated_NV = logits_NV.double().softmax(dim=-1).cumsum(dim=-1)
    wanted_N1 = draw_N1.to(cumulated_NV) * cumulated_NV[:, -1:]
    token_N1 = torch.searchsorted(cumulated_NV, wanted_N1, right=True)
    return token_N1.clamp(max=logits_NV.shape[-1] - 1)[:, 0]
