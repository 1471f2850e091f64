"""Prompts in, then token by token the logits of what comes next; three ways to remember a text."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from remote_trainer.errors import EngineError
from remote_trainer.inference.padded_rows import padded
from remote_trainer.inference.plain_forward import plain_logits
from remote_trainer.inference.prefix_cache import PrefixCache
from remote_trainer.models.attention import no_mask
from remote_trainer.records import TokenIds

CACHE_NAMES = ("cache", "past_key_values")

# P = distinct prompts, N = completions under way, L = positions seen so far, V = vocabulary


class Decoder(Protocol):
    """One batch of completions under way."""

    def begin(self, prompts: Sequence[TokenIds]) -> Tensor:
        """Read the prompts, equal ones once; logits behind each, (N, V)."""
        ...

    def step(self, token_N: Tensor) -> Tensor:
        """Read one more token of each; the logits behind it, (N, V)."""
        ...

    def keep(self, kept: Sequence[int]) -> None:
        """Go on with these completions only."""
        ...


class SharedDecoder:
    """Keeps the keys and values of a prompt once for all its completions."""

    def __init__(self, model: Any, pad_id: int, room: int) -> None:
        self._model, self._pad_id, self._room = model, pad_id, room
        self._cache = PrefixCache()

    def begin(self, prompts: Sequence[TokenIds]) -> Tensor:
        """See `Decoder`."""
        logits_NV, self._position_N, mask_PL, places = _read(
            self._model, self._cache, prompts, self._pad_id
        )
        padded_PL = mask_PL if len(set(map(len, prompts))) > 1 else None
        self._cache.branch(places, len(mask_PL), padded_PL, self._room)
        return logits_NV

    def step(self, token_N: Tensor) -> Tensor:
        """See `Decoder`."""
        self._position_N = self._position_N + 1
        return _next_logits(
            self._model,
            self._cache,
            input_ids=token_N[:, None],
            position_ids=self._position_N[:, None],
            attention_mask=no_mask(token_N.device),
            shared=self._cache,
        )

    def keep(self, kept: Sequence[int]) -> None:
        """See `Decoder`."""
        self._position_N = self._position_N[_index(kept, self._position_N)]
        self._cache.keep(kept)


class RepeatingDecoder:
    """Repeats the keys and values of a prompt for each completion: for every model with a cache."""

    def __init__(self, model: Any, pad_id: int) -> None:
        self._model, self._pad_id = model, pad_id
        self._cache = DynamicCache(config=model.config)

    def begin(self, prompts: Sequence[TokenIds]) -> Tensor:
        """See `Decoder`."""
        logits_NV, self._position_N, mask_PL, places = _read(
            self._model, self._cache, prompts, self._pad_id
        )
        place_N = _index(places, mask_PL)
        self._cache.batch_select_indices(place_N)
        self._mask_NL = mask_PL[place_N]
        return logits_NV

    def step(self, token_N: Tensor) -> Tensor:
        """See `Decoder`."""
        self._position_N = self._position_N + 1
        self._mask_NL = torch.cat([self._mask_NL, self._mask_NL.new_ones(len(token_N), 1)], dim=1)
        return _next_logits(
            self._model,
            self._cache,
            input_ids=token_N[:, None],
            position_ids=self._position_N[:, None],
            attention_mask=self._mask_NL,
        )

    def keep(self, kept: Sequence[int]) -> None:
        """See `Decoder`."""
        kept_N = _index(kept, self._position_N)
        self._position_N, self._mask_NL = self._position_N[kept_N], self._mask_NL[kept_N]
        self._cache.batch_select_indices(kept_N)


class RereadingDecoder:
    """Keeps no cache and reads every text anew at each step: slow, and right for every model.

    Texts of the same length go together, so that nothing is padded.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._texts: list[TokenIds] = []

    def begin(self, prompts: Sequence[TokenIds]) -> Tensor:
        """See `Decoder`."""
        self._texts = list(prompts)
        return self._read_all()

    def step(self, token_N: Tensor) -> Tensor:
        """See `Decoder`."""
        self._texts = [
            (*text, token) for text, token in zip(self._texts, token_N.tolist(), strict=True)
        ]
        return self._read_all()

    def keep(self, kept: Sequence[int]) -> None:
        """See `Decoder`."""
        self._texts = [self._texts[n] for n in kept]

    def _read_all(self) -> Tensor:
        distinct = list(dict.fromkeys(self._texts))
        behind: dict[TokenIds, Tensor] = {}
        for length in {len(text) for text in distinct}:
            texts = [text for text in distinct if len(text) == length]
            ids_PL = torch.tensor(texts, device=self._model.device)
            logits_P1V = plain_logits(self._model, 1, input_ids=ids_PL, use_cache=False)
            behind.update(zip(texts, logits_P1V[:, 0], strict=True))
        return torch.stack([behind[text] for text in self._texts])


def _read(
    model: Any, cache: Cache, prompts: Sequence[TokenIds], pad_id: int
) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Fill the cache with the distinct prompts.

    (logits (N, V), positions read last (N,), mask (P, L), which distinct prompt each one is).
    """
    distinct = list(dict.fromkeys(prompts))
    number = {prompt: p for p, prompt in enumerate(distinct)}
    places = [number[prompt] for prompt in prompts]
    ids_PL, mask_PL, positions_PL = padded(distinct, pad_id, model.device, "left")
    logits_PV = _next_logits(
        model,
        cache,
        input_ids=ids_PL,
        attention_mask=mask_PL,
        position_ids=positions_PL,
    )
    _require_filled(cache, ids_PL.shape[1])
    place_N = _index(places, logits_PV)
    return logits_PV[place_N], positions_PL[:, -1][place_N], mask_PL, places


def _index(places: Sequence[int], beside: Tensor) -> Tensor:
    return torch.tensor(places, device=beside.device)


def _require_filled(cache: Cache, length: int) -> None:
    """Going on from a cache that the model left empty gives wrong answers without a sign."""
    # Layers that keep a state in place of positions cannot be asked.
    held = [layer.get_seq_length() for layer in cache.layers if isinstance(layer, CacheLayerMixin)]
    if max(held, default=length if cache.layers else 0) < length:
        raise EngineError(
            f"the model read {length} tokens and kept {max(held, default=0)} of them in its cache, "
            "so it cannot go on from there"
        )


def _next_logits(model: Any, cache: Cache, **inputs: Any) -> Tensor:
    inputs[_cache_name(type(model).forward)] = cache
    return plain_logits(model, 1, **inputs, use_cache=True)[:, -1]


@functools.cache
def _cache_name(forward: Callable[..., Any]) -> str:
    """What a model calls its cache; the name is not the same in every transformers."""
    known = inspect.signature(forward).parameters
    return next((name for name in CACHE_NAMES if name in known), CACHE_NAMES[0])
