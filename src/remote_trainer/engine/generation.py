"""Completions from transformers' ``generate``, with the log-probability of every sampled id."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor

from remote_trainer.engine.codec import Codec
from remote_trainer.engine.model_state import scoring_mode
from remote_trainer.engine.padded_rows import left_padded
from remote_trainer.records import Generation, Sampling, TokenIds

# N = rows of one batch, L = padded prompt length, C = completion tokens, V = vocabulary


class _LogprobRecorder(LogitsProcessor):  # type: ignore[misc]
    """Keeps log p of each sampled id at temperature 1.

    ``generate`` runs our processor before its temperature, top-p and top-k warpers, so it sees raw
    logits; the id drawn from them is known at the next call only.
    """

    def __init__(self) -> None:
        self._logprobs_NV: Tensor | None = None
        self._columns_N: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._record(input_ids[:, -1])
        self._logprobs_NV = scores.float().log_softmax(dim=-1)
        return scores

    def _record(self, last_ids_N: Tensor) -> None:
        if self._logprobs_NV is not None:
            self._columns_N.append(self._logprobs_NV.gather(-1, last_ids_N[:, None])[:, 0])

    def logprobs_NC(self, sequences: Tensor) -> Tensor:
        """Log-probabilities of everything that was sampled."""
        self._record(sequences[:, -1])
        return torch.stack(self._columns_N, dim=1)


def generate(
    model: Any,
    codec: Codec,
    prompts: Sequence[TokenIds],
    sampling: Sampling,
    max_tokens_per_batch: int,
) -> list[Generation]:
    """One completion per prompt, in order, with its own random stream (``sampling.seed``)."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    generations: list[Generation | None] = [None] * len(prompts)
    devices = [model.device] if model.device.type == "cuda" else []
    with scoring_mode(model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(sampling.seed)
        while order:
            width = len(prompts[order[0]]) + sampling.max_new_tokens
            size = max(1, max_tokens_per_batch // width)
            batch, order = order[:size], order[size:]
            rows = _generate_batch(model, codec, [prompts[i] for i in batch], sampling)
            for i, row in zip(batch, rows, strict=True):
                generations[i] = row
    return [generation for generation in generations if generation is not None]


def _generate_batch(
    model: Any, codec: Codec, prompts: Sequence[TokenIds], sampling: Sampling
) -> list[Generation]:
    ids_NL, mask_NL, _ = left_padded(prompts, codec.pad_id, model.device)
    recorder = _LogprobRecorder()
    sequences = model.generate(
        input_ids=ids_NL,
        attention_mask=mask_NL,
        generation_config=_generation_config(codec, sampling),
        logits_processor=[recorder],
    )
    logprobs_NC = recorder.logprobs_NC(sequences)
    completions_NC = sequences[:, ids_NL.shape[1] :]
    return [
        _cut_at_eos(codec, ids.tolist(), logprobs.tolist())
        for ids, logprobs in zip(completions_NC, logprobs_NC, strict=True)
    ]


def _cut_at_eos(codec: Codec, ids: list[int], logprobs: list[float]) -> Generation:
    """Drop the padding that follows the first end-of-sequence id."""
    ends = [position for position, token in enumerate(ids) if token in codec.eos_ids]
    length = ends[0] + 1 if ends else len(ids)
    return Generation(tuple(ids[:length]), tuple(logprobs[:length]), ended=bool(ends))


def _generation_config(codec: Codec, sampling: Sampling) -> GenerationConfig:
    """Every setting is stated: ``generate`` fills gaps from the model's own preferences."""
    common: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "min_new_tokens": sampling.min_new_tokens or None,
        "pad_token_id": codec.pad_id,
        "eos_token_id": list(codec.eos_ids),
        "repetition_penalty": 1.0,
        "num_beams": 1,
        "disable_compile": True,
    }
    if sampling.temperature == 0:
        return GenerationConfig(do_sample=False, **common)
    return GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        **common,
    )
