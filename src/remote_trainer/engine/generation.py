"""Completions: each prompt is read once, all rows decode together, and what has ended leaves."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from remote_trainer.engine.attention import why_not_shared
from remote_trainer.engine.codec import Codec
from remote_trainer.engine.decoder import Decoder, RepeatingDecoder, SharedDecoder
from remote_trainer.engine.decoding_copy import Conversions, decoding_copy
from remote_trainer.engine.model_state import scoring_mode
from remote_trainer.errors import EngineError
from remote_trainer.records import Generation, Sampling, TokenIds

# N = rows that still decode, V = vocabulary

TOKENS_COMPARED = 4
EXACT_NATS, COARSE_NATS = 1e-3, 0.3  # float32; 16-bit weights round each way of attention apart


def generate(
    model: Any,
    codec: Codec,
    prompts: Sequence[TokenIds],
    sampling: Sampling,
    max_tokens_per_batch: int,
    dtype: torch.dtype,
    shared: bool = True,
    conversions: Conversions | None = None,
) -> list[Generation]:
    """One completion per prompt, in order, by a copy of the model in ``dtype``.

    Every completion has a random stream of its own, of ``sampling.seed``, its prompt and its place
    among the completions of that prompt, so it does not depend on what is decoded beside it. At
    most ``max_tokens_per_batch`` tokens, prompts and completions, are in memory at once. With
    ``shared`` the completions of a prompt share its keys and values, which count once;
    ``conversions`` are kept from call to call.
    """
    generations: list[Generation | None] = [None] * len(prompts)
    streams = _streams(prompts, sampling)
    with scoring_mode(model):
        # Where nothing is shared, transformers' own layers decode, as they do for every model.
        twin = decoding_copy(model, dtype, conversions, fuse=shared)
        for batch in _batches(prompts, sampling.max_new_tokens, max_tokens_per_batch, shared):
            rows = [_Row(i, streams[i]) for i in batch]
            decoder = _decoder(twin, codec, sampling, shared)
            _decode(decoder, codec, [prompts[i] for i in batch], rows, sampling)
            for row in rows:
                ended = bool(row.ids) and row.ids[-1] in codec.eos_ids
                generations[row.index] = Generation(
                    tuple(row.ids), tuple(row.logprobs), tuple(row.drawn_logprobs), ended
                )
    return [generation for generation in generations if generation is not None]


def _batches(
    prompts: Sequence[TokenIds], room: int, most_tokens: int, shared: bool
) -> Iterator[list[int]]:
    """Places of prompts that decode together, equal ones side by side, the longest first."""
    batch: list[int] = []
    counts: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), prompts[i])):
        again = shared and bool(batch) and prompts[i] == prompts[batch[-1]]
        grown = [*counts[:-1], counts[-1] + 1] if again else [*counts, 1]
        # All have the length of the first, and as many places as the prompt with most completions.
        longest = len(prompts[(batch or [i])[0]])
        if batch and len(grown) * (longest + max(grown) * room) > most_tokens:
            yield batch
            batch, grown = [], [1]
        batch.append(i)
        counts = grown
    if batch:
        yield batch


def why_not_shared_decoding(
    model: Any, codec: Codec, prompts: Sequence[TokenIds], dtype: torch.dtype
) -> str | None:
    """Why completions of this model may not share a prompt's cache; None where that is exact.

    Compares both ways on ``prompts``, which should be real ones: the log-probs of the same few ids.
    """
    with scoring_mode(model):
        twin = decoding_copy(model, dtype)
        reason = why_not_shared(twin)
        if reason is not None:
            return reason
        try:
            gap = _largest_gap(twin, codec, [p for p in prompts for _ in range(2)])
        except (RuntimeError, TypeError, ValueError, AttributeError, EngineError) as error:
            return f"it does not decode so: {type(error).__name__}: {str(error)[:200]}"
    limit = EXACT_NATS if twin.dtype == torch.float32 else COARSE_NATS
    return f"log-probs differ by {gap:.2g} nats" if not gap <= limit else None


def _largest_gap(twin: Any, codec: Codec, prompts: Sequence[TokenIds]) -> float:
    """Largest mean difference of a row's log-probs, over ids that the plain way finds likeliest."""
    room = TOKENS_COMPARED
    plain, shared = RepeatingDecoder(twin, codec.pad_id), SharedDecoder(twin, codec.pad_id, room)
    expected_NV, found_NV = plain.begin(prompts), shared.begin(prompts)
    gaps = []
    for _ in range(room):
        token_N = expected_NV.argmax(dim=-1)
        expected_NV, found_NV = plain.step(token_N), shared.step(token_N)
        likeliest_N1 = expected_NV.argmax(dim=-1, keepdim=True)
        both = [x.float().log_softmax(-1).gather(-1, likeliest_N1) for x in (expected_NV, found_NV)]
        gaps.append((both[0] - both[1]).abs())
    return float(torch.cat(gaps, dim=1).mean(dim=1).max())


def _decoder(twin: Any, codec: Codec, sampling: Sampling, shared: bool) -> Decoder:
    if shared:
        return SharedDecoder(twin, codec.pad_id, sampling.max_new_tokens)
    return RepeatingDecoder(twin, codec.pad_id)


@dataclass
class _Row:
    """One completion under way."""

    index: int
    draws: list[float]
    """A uniform number in [0, 1) for each token."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    drawn_logprobs: list[float] = field(default_factory=list)


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
    decoder: Decoder,
    codec: Codec,
    prompts: Sequence[TokenIds],
    rows: list[_Row],
    sampling: Sampling,
) -> None:
    """Fill ``rows``, one per prompt."""
    logits_NV = decoder.begin(prompts)
    alive = rows
    for step in range(sampling.max_new_tokens):
        token_N = _next_tokens(logits_NV.float(), alive, step, codec, sampling)
        going = [n for n, row in enumerate(alive) if row.ids[-1] not in codec.eos_ids]
        if not going or step + 1 == sampling.max_new_tokens:
            return
        if len(going) < len(alive):
            kept_N = torch.tensor(going, device=token_N.device)
            decoder.keep(kept_N)
            token_N, alive = token_N[kept_N], [alive[n] for n in going]
        logits_NV = decoder.step(token_N)


def _next_tokens(
    logits_NV: Tensor, rows: Sequence[_Row], step: int, codec: Codec, sampling: Sampling
) -> Tensor:
    """Draw one id per row and note it with its log-probs."""
    heat = sampling.temperature or 1.0
    logprobs_NV = logits_NV.log_softmax(dim=-1)
    heated_NV = logprobs_NV if heat == 1 else (logits_NV / heat).log_softmax(dim=-1)
    allowed_NV = heated_NV
    if step < sampling.min_new_tokens:
        eos = torch.tensor(codec.eos_ids, device=logits_NV.device)
        allowed_NV = heated_NV.index_fill(1, eos, float("-inf"))
    if sampling.temperature == 0:
        token_N = allowed_NV.argmax(dim=-1)
    else:
        draws = [[row.draws[step]] for row in rows]
        token_N = _drawn(_warped(allowed_NV, sampling), torch.tensor(draws))
    noted = [x.gather(-1, token_N[:, None])[:, 0].tolist() for x in (logprobs_NV, heated_NV)]
    for row, token, logprob, drawn in zip(rows, token_N.tolist(), *noted, strict=True):
        row.ids.append(token)
        row.logprobs.append(logprob)
        row.drawn_logprobs.append(drawn)
    return token_N


def _warped(logits_NV: Tensor, sampling: Sampling) -> Tensor:
    """Top-k, then top-p, behind temperature, as transformers orders them."""
    warpers = LogitsProcessorList()
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    warped: Tensor = warpers(None, logits_NV)
    return warped


def _drawn(logits_NV: Tensor, draw_N1: Tensor) -> Tensor:
    """The ids at which the cumulated probability passes the draws."""
    cumulated_NV = logits_NV.double().softmax(dim=-1).cumsum(dim=-1)
    wanted_N1 = draw_N1.to(cumulated_NV) * cumulated_NV[:, -1:]
    token_N1 = torch.searchsorted(cumulated_NV, wanted_N1, right=True)
    return token_N1.clamp(max=logits_NV.shape[-1] - 1)[:, 0]
