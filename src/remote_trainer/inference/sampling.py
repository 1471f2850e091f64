"""Completions: each prompt is read once, all rows decode together, and what has ended leaves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from remote_trainer.cpu.sampling_copy import ConvertedWeightCache, make_sampling_copy
from remote_trainer.inference.completion_seeds import completion_seeds
from remote_trainer.inference.decoders import (
    Decoder,
    RepeatingDecoder,
    RereadingDecoder,
    SharedDecoder,
)
from remote_trainer.models.modes import causal_model, scoring_mode
from remote_trainer.progress import OnProgress
from remote_trainer.records import Generation, Sampling, TokenIds
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

# N = rows that still decode, V = vocabulary, T = steps, E = end tokens

STEPS_BETWEEN_READS = 16
"""Steps that a device decodes before the host looks which completions have ended: a look waits
for the device. On a CPU there is nothing to wait for, and what has ended leaves at once."""


@dataclass(frozen=True)
class Way:
    """One way to decode, and what is said where it is taken because a faster one does not fit."""

    name: str
    told: str = ""
    copied: bool = True
    """By a copy of the model: adapter folded into the weights, in the dtype of sampling."""
    fused: bool = False
    shared: bool = False
    """Completions share the keys and values of their prompt."""
    cached: bool = True


WAYS = (
    Way("shared cache, fused layers", fused=True, shared=True),
    Way("shared cache", "sampling runs the model's own layers, not fused ones", shared=True),
    Way("cache of each completion", "every completion keeps its prompt's cache"),
    Way("model itself", "sampling runs the model itself and no copy of it", copied=False),
    Way(
        "no cache",
        "sampling keeps no cache and reads every text anew at each token, which is slow",
        copied=False,
        cached=False,
    ),
)
"""The fastest first; the last one is the plain forward pass of the model itself."""


def generate(
    model: Any,
    prompt_tokenizer: PromptTokenizer,
    prompts: Sequence[TokenIds],
    sampling: Sampling,
    max_tokens_per_batch: int,
    dtype: torch.dtype,
    way: Way = WAYS[0],
    converted_weights: ConvertedWeightCache | None = None,
    on_progress: OnProgress | None = None,
) -> list[Generation]:
    """One completion per prompt, in order; by a copy of the model in ``dtype`` if ``way`` has one.

    Every completion has a random stream of its own, of ``sampling.seed``, its prompt and its place
    among the completions of that prompt, so it does not depend on what is decoded beside it. At
    most ``max_tokens_per_batch`` tokens, prompts and completions, are in memory at once. Where the
    completions of a prompt share its keys and values these count once; ``converted_weights`` are
    kept from call to call.
    """
    generations: list[Generation | None] = [None] * len(prompts)
    done = 0
    streams = _streams(prompts, sampling)
    with scoring_mode(model):
        sampling_copy = copy_for(way, model, dtype, converted_weights)
        for batch in _batches(prompts, sampling.max_new_tokens, max_tokens_per_batch, way.shared):
            rows = [_Row(i, streams[i]) for i in batch]
            decoder = decoder_for(way, sampling_copy, prompt_tokenizer, sampling.max_new_tokens)
            _decode(decoder, prompt_tokenizer, [prompts[i] for i in batch], rows, sampling)
            for row in rows:
                ended = bool(row.ids) and row.ids[-1] in prompt_tokenizer.eos_ids
                generations[row.index] = Generation(
                    tuple(row.ids), tuple(row.logprobs), tuple(row.drawn_logprobs), ended
                )
            done += len(rows)
            if on_progress is not None:
                on_progress(done, len(prompts))
    return [generation for generation in generations if generation is not None]


def copy_for(
    way: Way, model: Any, dtype: torch.dtype, converted_weights: ConvertedWeightCache | None = None
) -> Any:
    """The model that decodes."""
    if not way.copied:
        return causal_model(model)
    return make_sampling_copy(model, dtype, converted_weights, fuse=way.fused)


def decoder_for(
    way: Way, sampling_copy: Any, prompt_tokenizer: PromptTokenizer, room: int
) -> Decoder:
    """A fresh decoder for up to ``room`` tokens a completion."""
    if way.shared:
        return SharedDecoder(sampling_copy, prompt_tokenizer.pad_id, room)
    return (
        RepeatingDecoder(sampling_copy, prompt_tokenizer.pad_id)
        if way.cached
        else RereadingDecoder(sampling_copy)
    )


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
    streams = []
    seeds = completion_seeds(prompts, sampling.seed, size=8, signed=True, earlier=sampling.earlier)
    for seed in seeds:
        draws = torch.rand(
            sampling.max_new_tokens,
            generator=torch.Generator().manual_seed(seed),
            dtype=torch.float64,
        )
        streams.append(draws.tolist())
    return streams


def _decode(
    decoder: Decoder,
    prompt_tokenizer: PromptTokenizer,
    prompts: Sequence[TokenIds],
    rows: list[_Row],
    sampling: Sampling,
) -> None:
    """Fill ``rows``, one per prompt."""
    logits_NV = decoder.begin(prompts)
    device, eos_ids = logits_NV.device, prompt_tokenizer.eos_ids
    interval = 1 if device.type == "cpu" else STEPS_BETWEEN_READS
    eos_E = torch.tensor(eos_ids, device=device)
    draw_NT = torch.tensor([row.draws for row in rows], device=device)
    alive, unread = rows, []
    for step in range(1, sampling.max_new_tokens + 1):
        drawn = _next_tokens(logits_NV.float(), draw_NT, step - 1, eos_E, sampling)
        token_N = drawn[0]
        unread.append(torch.stack([numbers_N.double() for numbers_N in drawn]))
        if step % interval == 0 or step == sampling.max_new_tokens:
            _read(torch.stack(unread), alive, eos_ids)
            unread = []
            going = [n for n, row in enumerate(alive) if row.ids[-1] not in eos_ids]
            if not going or step == sampling.max_new_tokens:
                return
            if len(going) < len(alive):
                kept_N = torch.tensor(going, device=device)
                decoder.keep(going)
                token_N, draw_NT = token_N[kept_N], draw_NT[kept_N]
                alive = [alive[n] for n in going]
        logits_NV = decoder.step(token_N)


def _read(drawn_T3N: Tensor, rows: Sequence[_Row], eos_ids: Sequence[int]) -> None:
    """Note what was drawn, with its log-probs, in one transfer: doubles hold ids exactly."""
    for token_N, logprob_N, drawn_N in drawn_T3N.tolist():
        for row, token, logprob, drawn in zip(rows, token_N, logprob_N, drawn_N, strict=True):
            if row.ids and row.ids[-1] in eos_ids:
                continue  # decoded on until somebody looked
            row.ids.append(int(token))
            row.logprobs.append(logprob)
            row.drawn_logprobs.append(drawn)


def _next_tokens(
    logits_NV: Tensor, draw_NT: Tensor, step: int, eos_E: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor]:
    """(an id per row, its log-prob, the one at the temperature of sampling), each (N,)."""
    temperature = sampling.temperature or 1.0
    logprobs_NV = logits_NV.log_softmax(dim=-1)
    scaled_NV = logprobs_NV if temperature == 1 else (logits_NV / temperature).log_softmax(dim=-1)
    allowed_NV = scaled_NV
    if step < sampling.min_new_tokens:
        allowed_NV = scaled_NV.index_fill(1, eos_E, float("-inf"))
    if sampling.temperature == 0:
        token_N = allowed_NV.argmax(dim=-1)
    else:
        token_N = _drawn(_warped(allowed_NV, sampling), draw_NT[:, step : step + 1])
    logprob_N, drawn_N = (x.gather(-1, token_N[:, None])[:, 0] for x in (logprobs_NV, scaled_NV))
    return token_N, logprob_N, drawn_N


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
