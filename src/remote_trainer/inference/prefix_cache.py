"""Keys and values of prompts, held once, and behind them those of every completion under way."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

# P = distinct prompts, N = completions under way, W = most of them for one prompt,
# S = P * W places, K = key heads, R = query heads of a key head, H = K * R,
# L = prompt positions, T = completion positions, D = head size


class PrefixCache(Cache):  # type: ignore[misc]
    """Grows in place: nothing is copied when a token is added, and no prompt is repeated.

    First a batch of prompts is read as into any cache; then `branch` opens the completions, which
    stand in a table with a line per prompt; where a prompt has fewer of them, anything stands.
    Fulfils `remote_trainer.models.attention.SharedAttention`.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_BranchingLayer)

    def branch(
        self, prompt_of: Sequence[int], prompts: int, shown_PL: Tensor | None, room: int
    ) -> None:
        """Let completion n continue prompt ``prompt_of[n]`` by up to ``room`` tokens.

        ``shown_PL`` is the attention mask that the prompts were read with; None where they are
        equally long, so that nothing is hidden.
        """
        device = self.layers[0].keys.device
        self._prompt_of = list(prompt_of)
        self._table = _Table(self._prompt_of, prompts, device)
        for layer in self.layers:
            layer.branch(self._table, room)
        keys = self.layers[0].keys
        self._masked = shown_PL is not None
        self._nothing = self._bias = keys.new_zeros(1, 1, 1)
        if shown_PL is not None:
            hidden_PL = shown_PL == 0
            bias_PL = keys.new_zeros(hidden_PL.shape).masked_fill(hidden_PL, float("-inf"))
            # Hides the padding of shorter prompts: scores are added to it.
            self._bias = bias_PL.repeat_interleave(keys.shape[1], 0)[:, None]

    def keep(self, kept: Sequence[int]) -> None:
        """Go on with these completions only."""
        before = self._table
        self._prompt_of = [self._prompt_of[n] for n in kept]
        self._table = _Table(self._prompt_of, before.prompts, before.place_N.device)
        places = [before.places[kept[n]] for n in self._table.completions]
        place_S = torch.tensor(places, device=before.place_N.device)
        for layer in self.layers:
            layer.keep(self._table, place_S)

    def attend(
        self, layer: int, query_BHQD: Tensor, key_BHKD: Tensor, value_BHKD: Tensor, scaling: float
    ) -> Tensor:
        """Output, (N, 1, H, D), of one new token per completion.

        All queries of a prompt meet its keys in one product. The keys and values given are those
        behind the prompts as `_BranchingLayer.update` returns them.
        """
        held, own_keys, own_values = self.layers[layer], key_BHKD, value_BHKD  # (P, K, W, T, D)
        n, heads, _, size = query_BHQD.shape
        p, k, w = own_keys.shape[:3]
        query = self._table.spread(query_BHQD.view(n, k, -1, size)).to(own_keys.dtype).contiguous()
        r, length = query.shape[3], held.prompt_values.shape[2]
        scores = [
            _scaled(
                self._bias,
                query.view(p * k, w * r, size),
                held.prompt_keys_T.flatten(0, 1),
                scaling,
                keep_first=self._masked,
            ).view(p * k * w, r, length),
            _scaled(
                self._nothing,
                query.view(p * k * w, r, size),
                own_keys.flatten(0, 2).transpose(1, 2),
                scaling,
            ),
        ]
        weights = torch.cat(scores, dim=-1).float().softmax(dim=-1).to(own_keys.dtype)
        prefix = weights[..., :length].view(p * k, w * r, length)
        read = torch.bmm(prefix, held.prompt_values.flatten(0, 1)).view(p * k * w, r, size)
        read = torch.baddbmm(read, weights[..., length:], own_values.flatten(0, 2))
        output_NHD = self._table.collect(read.view(p, k, w, r * size)).to(query_BHQD.dtype)
        return output_NHD.reshape(n, 1, heads, size)


class _Table:
    """Where each completion stands in the lines of the prompts."""

    def __init__(self, prompt_of: Sequence[int], prompts: int, device: torch.device) -> None:
        count = Counter(prompt_of)
        self.prompts, self.width = prompts, max(count.values())
        used = [0] * prompts
        self.places: list[int] = []
        for prompt in prompt_of:
            self.places.append(prompt * self.width + used[prompt])
            used[prompt] += 1
        self.completions = [0] * (prompts * self.width)
        """Which completion stands in each place; where none does, the first."""
        for n, place in enumerate(self.places):
            self.completions[place] = n
        # As long as nothing has ended, the table is the completions in their order.
        self._plain = self.completions == list(range(len(prompt_of)))
        both = torch.tensor([*self.places, *self.completions], device=device)
        self.place_N, self._completion_S = both[: len(prompt_of)], both[len(prompt_of) :]

    def spread(self, x_NKX: Tensor) -> Tensor:
        """(N, K, ...) -> (P, K, W, ...)."""
        places = x_NKX if self._plain else x_NKX[self._completion_S]
        return places.view(self.prompts, self.width, *places.shape[1:]).transpose(1, 2)

    def collect(self, x_PKWX: Tensor) -> Tensor:
        """(P, K, W, X) -> (N, K, X): inverse of `spread`."""
        places = x_PKWX.transpose(1, 2).flatten(0, 1)
        return places if self._plain else places[self.place_N]


def _scaled(first: Tensor, a: Tensor, b: Tensor, factor: float, keep_first: bool = False) -> Tensor:
    """``factor * a @ b`` for batches of matrices, plus ``first`` where that is to be kept."""
    return torch.baddbmm(first, a, b, beta=int(keep_first), alpha=factor)


class _BranchingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's part of a `PrefixCache`."""

    keys: Tensor
    values: Tensor
    prompt_keys_T: Tensor | None = None

    def branch(self, table: _Table, room: int) -> None:
        # On a CPU the many small products cost less in float32 than the calls that avoid it.
        dtype = torch.float32 if self.keys.device.type == "cpu" else self.keys.dtype
        self.prompt_keys_T = self.keys.transpose(-1, -2).to(dtype).contiguous()
        self.prompt_values = self.values.to(dtype)
        prompts, heads, self._length, size = self.keys.shape
        rows = (prompts, heads, table.width, room)
        self.keys = self.keys.new_empty(*rows, size, dtype=dtype)
        self.values = self.values.new_empty(*rows, self.values.shape[3], dtype=dtype)
        self._table, self._used = table, 0

    def keep(self, table: _Table, place_S: Tensor) -> None:
        self._table = table
        for name in ("keys", "values"):
            places = getattr(self, name).transpose(1, 2).flatten(0, 1)[place_S]
            lines = places.view(table.prompts, table.width, *places.shape[1:])
            setattr(self, name, lines.transpose(1, 2).contiguous())

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """The keys and values so far; behind the prompts (P, K, W, T, D)."""
        if self.prompt_keys_T is None:
            read: tuple[Tensor, Tensor] = super().update(key_states, value_states)
            return read
        self.keys[:, :, :, self._used] = self._table.spread(key_states[:, :, 0])
        self.values[:, :, :, self._used] = self._table.spread(value_states[:, :, 0])
        self._used += 1
        return self.keys[:, :, :, : self._used], self.values[:, :, :, : self._used]

    def get_seq_length(self) -> int:
        if self.prompt_keys_T is None:
            return int(super().get_seq_length())
        return int(self._length + self._used)
