"""How completions are decoded: the fastest way that says what the model itself says."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from remote_trainer.cpu.sampling_copy import (
    ConvertedWeightCache,
    folding_blocker,
    fusing_blocker,
    has_fused_layers,
)
from remote_trainer.fallback import reason_to_give_up
from remote_trainer.inference.agreement import largest, limit_of, why_apart
from remote_trainer.inference.plain_forward import plain_logits
from remote_trainer.inference.sampling import WAYS, Way, copy_for, decoder_for, generate
from remote_trainer.models.attention import why_not_shared
from remote_trainer.models.modes import causal_model, scoring_mode
from remote_trainer.models.quantization import is_in_4bit
from remote_trainer.progress import OnProgress
from remote_trainer.records import Generation, Sampling, TokenIds
from remote_trainer.tokenization.prompt_tokenizer import PromptTokenizer

logger = logging.getLogger(__name__)

# N = completions under way, T = steps, V = vocabulary

PROMPTS_COMPARED = 4
TOKENS_COMPARED = 4


Key = tuple[torch.dtype, bool]
"""Dtype of sampling, and whether layers are fused: only those that carry an adapter are."""


class DecodingPaths:
    """Finds out once how a model can decode, and steps down where a way fails."""

    def __init__(self) -> None:
        self._place: dict[Key, int] = {}
        self._converted_weights = ConvertedWeightCache()
        self._lines: set[str] = set()
        self.told: dict[str, str] = {}
        """Dtype -> how it decodes, and why not faster."""
        self.reasons: dict[str, str] = {}
        """Dtype -> why it decodes no faster; only where there is a reason."""

    def generate(
        self,
        model: Any,
        prompt_tokenizer: PromptTokenizer,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        max_tokens_per_batch: int,
        dtype: torch.dtype,
        on_progress: OnProgress | None = None,
    ) -> list[Generation]:
        """`generation.generate` by the fastest way; what fails is done again more slowly."""
        if not prompts:
            return []
        key = dtype, has_fused_layers(model, dtype)
        if key not in self._place:
            self._find(model, prompt_tokenizer, prompts, key)
        while True:
            way = WAYS[self._place[key]]
            try:
                return generate(
                    model,
                    prompt_tokenizer,
                    prompts,
                    sampling,
                    max_tokens_per_batch,
                    dtype,
                    way,
                    self._converted_weights,
                    on_progress,
                )
            except Exception as error:
                reason = reason_to_give_up(error)
                if way is WAYS[-1]:
                    raise
                self._take(key, self._place[key] + 1, reason)

    def _find(
        self, model: Any, prompt_tokenizer: PromptTokenizer, prompts: Sequence[TokenIds], key: Key
    ) -> None:
        some = list(dict.fromkeys(prompts))[:PROMPTS_COMPARED]
        dtype, fused = key
        self._take(key, 0 if fused else 1)
        on_cpu = causal_model(model).device.type == "cpu"
        plain = fusing_blocker(model, dtype) if on_cpu else None
        if plain is not None:  # known beforehand, so that nobody need be warned
            self._note(key, plain)
        apart = folding_blocker(model, dtype)
        if apart is not None:
            self._tell(f"sampling keeps the adapter beside the weights: {apart}")
        while (way := WAYS[self._place[key]]) is not WAYS[-1]:
            reason = why_not(way, model, prompt_tokenizer, some, dtype)
            if reason is None:
                return
            self._take(key, _below(way, model), reason)

    def _take(self, key: Key, place: int, reason: str | None = None) -> None:
        self._place[key] = place
        self._note(key, reason)
        if reason is not None:
            self._tell(f"{WAYS[place].told}: {reason}")

    def _note(self, key: Key, reason: str | None) -> None:
        """For those who ask later how it decodes."""
        dtype = str(key[0]).removeprefix("torch.")
        self.told[dtype] = WAYS[self._place[key]].name
        self.reasons.pop(dtype, None)
        if reason is not None:
            self.told[dtype] += f"; not faster: {reason}"
            self.reasons[dtype] = reason

    def _tell(self, line: str) -> None:
        if line not in self._lines:  # of another dtype
            logger.warning("%s", line)
        self._lines.add(line)


def why_not(
    way: Way,
    model: Any,
    prompt_tokenizer: PromptTokenizer,
    prompts: Sequence[TokenIds],
    dtype: torch.dtype,
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
            gap = _largest_gap(
                way, model, prompt_tokenizer, [p for p in prompts for _ in range(2)], dtype
            )
    except Exception as error:
        return reason_to_give_up(error, "it does not decode so")
    causal = causal_model(model)
    return why_apart(gap, limit_of(dtype, causal.dtype, in_4bit=is_in_4bit(causal)))


def _largest_gap(
    way: Way,
    model: Any,
    prompt_tokenizer: PromptTokenizer,
    prompts: Sequence[TokenIds],
    dtype: torch.dtype,
) -> float:
    """Largest mean difference of a completion's log-probs, over ids that ``way`` finds likely."""
    sampling_copy = copy_for(way, model, dtype)
    decoder = decoder_for(way, sampling_copy, prompt_tokenizer, TOKENS_COMPARED)
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
    return largest(gaps)


def _plainly(model: Any, text: list[int]) -> Tensor:
    """Log-probs of the last ids of a text by one plain pass, (T,)."""
    ids_1L = torch.tensor([text], device=causal_model(model).device)
    logits_TV = plain_logits(model, TOKENS_COMPARED + 1, input_ids=ids_1L, use_cache=False)[0, :-1]
    last_T1 = ids_1L[0, -TOKENS_COMPARED:, None]
    return logits_TV.float().log_softmax(-1).gather(-1, last_T1)[:, 0]


def _below(way: Way, model: Any) -> int:
    """The next way down. What forbids a shared cache forbids it without fused layers, too."""
    same = way.fused and why_not_shared(causal_model(model)) is not None
    return WAYS.index(way) + (2 if same else 1)
