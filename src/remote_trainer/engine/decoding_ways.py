"""How completions are decoded: the fastest way that says what the model itself says."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from remote_trainer.engine.attention import why_not_shared
from remote_trainer.engine.codec import Codec
from remote_trainer.engine.decoding_copy import Conversions, has_fused_layers, why_not_folded
from remote_trainer.engine.faults import reason_to_give_up
from remote_trainer.engine.generation import WAYS, Way, copy_for, decoder_for, generate
from remote_trainer.engine.model_state import causal_model, scoring_mode
from remote_trainer.engine.plain_pass import plain_logits
from remote_trainer.records import Generation, Sampling, TokenIds

logger = logging.getLogger(__name__)

# N = completions under way, T = steps, V = vocabulary

PROMPTS_COMPARED = 4
TOKENS_COMPARED = 4
EXACT_NATS, COARSE_NATS = 1e-3, 0.3  # float32; 16-bit weights round each way of attention apart


class DecodingWays:
    """Finds out once for each dtype how a model can decode, and steps down where a way fails."""

    def __init__(self) -> None:
        self._place: dict[torch.dtype, int] = {}
        self._conversions = Conversions()
        self.told: dict[str, str] = {}
        """Dtype -> how it decodes, and why not faster."""

    def generate(
        self,
        model: Any,
        codec: Codec,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        max_tokens_per_batch: int,
        dtype: torch.dtype,
    ) -> list[Generation]:
        """`generation.generate` by the way of ``dtype``; what fails is done again more slowly."""
        if not prompts:
            return []
        if dtype not in self._place:
            self._find(model, codec, prompts, dtype)
        while True:
            way = WAYS[self._place[dtype]]
            try:
                return generate(
                    model,
                    codec,
                    prompts,
                    sampling,
                    max_tokens_per_batch,
                    dtype,
                    way,
                    self._conversions,
                )
            except Exception as error:
                reason = reason_to_give_up(error)
                if way is WAYS[-1]:
                    raise
                self._take(dtype, self._place[dtype] + 1, reason)

    def _find(
        self, model: Any, codec: Codec, prompts: Sequence[TokenIds], dtype: torch.dtype
    ) -> None:
        some = list(dict.fromkeys(prompts))[:PROMPTS_COMPARED]
        self._take(dtype, 0)
        apart = why_not_folded(model, dtype)
        if apart is not None:
            logger.warning("sampling keeps the adapter beside the weights: %s", apart)
        while (way := WAYS[self._place[dtype]]) is not WAYS[-1]:
            reason = why_not(way, model, codec, some, dtype)
            if reason is None:
                return
            self._take(dtype, _below(way, model, dtype), reason)

    def _take(self, dtype: torch.dtype, place: int, reason: str | None = None) -> None:
        self._place[dtype] = place
        name = str(dtype).removeprefix("torch.")
        self.told[name] = WAYS[place].name + (f"; not faster: {reason}" if reason else "")
        if reason is not None:
            logger.warning("%s: %s", WAYS[place].told, reason)


def why_not(
    way: Way, model: Any, codec: Codec, prompts: Sequence[TokenIds], dtype: torch.dtype
) -> str | None:
    """Why this model's completions may not be decoded so; None where that is exact.

    Compares with the plain forward pass, without cache or copy, on ``prompts``, which should be
    real ones: the log-probs of the same few ids.
    """
    static = why_not_shared(causal_model(model)) if way.shared else None
    if static is not None:
        return static
    try:
        with scoring_mode(model):
            gap = _largest_gap(way, model, codec, [p for p in prompts for _ in range(2)], dtype)
    except Exception as error:
        return reason_to_give_up(error, "it does not decode so")
    exact = dtype == causal_model(model).dtype == torch.float32
    limit = EXACT_NATS if exact else COARSE_NATS
    return f"log-probs differ by {gap:.2g} nats" if not gap <= limit else None


def _largest_gap(
    way: Way, model: Any, codec: Codec, prompts: Sequence[TokenIds], dtype: torch.dtype
) -> float:
    """Largest mean difference of a completion's log-probs, over ids that ``way`` finds likely."""
    twin = copy_for(way, model, dtype)
    decoder = decoder_for(way, twin, codec, TOKENS_COMPARED)
    texts = [list(prompt) for prompt in prompts]
    logits_NV = decoder.begin(prompts)
    found: list[Tensor] = []
    for step in range(TOKENS_COMPARED):
        best_N2 = logits_NV.topk(2, dim=-1).indices
        token_N = best_N2[:, 0]
        if step == 0:  # two completions of a prompt are to be different ones
            token_N = torch.where(torch.arange(len(texts), device=token_N.device) % 2 == 0,
                                  best_N2[:, 0], best_N2[:, 1])  # fmt: skip
        found.append(logits_NV.float().log_softmax(-1).gather(-1, token_N[:, None])[:, 0])
        for text, token in zip(texts, token_N.tolist(), strict=True):
            text.append(token)
        if step + 1 < TOKENS_COMPARED:
            logits_NV = decoder.step(token_N)
    gaps = [
        (found_T - _plainly(model, text)).abs().mean().item()
        for found_T, text in zip(torch.stack(found, dim=1), texts, strict=True)
    ]
    # A number that is none must not get lost in a maximum.
    return max(gaps) if all(gap == gap for gap in gaps) else float("nan")


def _plainly(model: Any, text: list[int]) -> Tensor:
    """Log-probs of the last ids of a text by one plain pass, (T,)."""
    ids_1L = torch.tensor([text], device=causal_model(model).device)
    logits_TV = plain_logits(model, TOKENS_COMPARED + 1, input_ids=ids_1L, use_cache=False)[0, :-1]
    last_T1 = ids_1L[0, -TOKENS_COMPARED:, None]
    return logits_TV.float().log_softmax(-1).gather(-1, last_T1)[:, 0]


def _below(way: Way, model: Any, dtype: torch.dtype) -> int:
    """The next way down that is another one for this model."""
    place = WAYS.index(way) + 1
    same = way.fused and (
        why_not_shared(causal_model(model)) is not None or not has_fused_layers(model, dtype)
    )
    return place + 1 if same else place
