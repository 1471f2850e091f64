"""Keys and values of prompts, held once, and behind them those of every completion under way."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

# P = distinct prompts, N = completions under way, G = most of them for one prompt,
# KV = key heads, R = query heads of a key head, L = prompt positions, T = completion positions


class PrefixCache(Cache):  # type: ignore[misc]
    """Grows in place: nothing is copied when a token is added, and no prompt is repeated.

    First a batch of prompts is read as into any cache; then `branch` opens the completions. Fulfils
    `remote_trainer.engine.attention.SharedAttention`.
    """

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=_BranchingLayer)

    def branch(self, prompt_N: Sequence[int], shown_PL: Tensor, room: int) -> None:
        """Let completion n continue prompt ``prompt_N[n]`` by up to ``room`` tokens.

        ``shown_PL`` is the attention mask that the prompts were read with.
        """
        self._prompt_N = torch.tensor(prompt_N, device=shown_PL.device)
        hidden_PL = shown_PL == 0
        self._bias_P11L = (
            torch.zeros(hidden_PL.shape, device=shown_PL.device).masked_fill(
                hidden_PL, float("-inf")
            )[:, None, None]
            if hidden_PL.any()
            else None
        )
        self._arrange(len(shown_PL))
        for layer in self.layers:
            layer.branch(len(prompt_N), room)

    def keep(self, kept_N: Tensor) -> None:
        """Go on with these completions only."""
        self._prompt_N = self._prompt_N[kept_N]
        self._arrange(len(self.layers[0].prompt_values))
        for layer in self.layers:
            layer.keep(kept_N)

    def _arrange(self, prompts: int) -> None:
        """Where each completion stands in a table with a line per prompt."""
        counts_P = self._prompt_N.bincount(minlength=prompts)
        self._width = int(counts_P.max())
        order_N = self._prompt_N.argsort(stable=True)
        first_P = counts_P.cumsum(0) - counts_P
        number_N = torch.arange(len(order_N), device=order_N.device)
        place_N = torch.empty_like(order_N)
        line_N = self._prompt_N[order_N]
        place_N[order_N] = line_N * self._width + number_N - first_P[line_N]
        self._place_N = place_N
        self._source_PG = torch.zeros(
            prompts * self._width, dtype=torch.long, device=place_N.device
        ).scatter(0, place_N, number_N)
        # As long as nothing has ended, the table is the completions in their order.
        self._full = torch.equal(place_N, number_N) and len(place_N) == prompts * self._width

    def attend(
        self, layer: int, query_BHQD: Tensor, key_BHKD: Tensor, value_BHKD: Tensor, scaling: float
    ) -> Tensor:
        """Output, (N, 1, H, D), of one new token per completion.

        All queries of a prompt meet its keys in one product; keys and values given are those
        behind the prompts.
        """
        held = self.layers[layer]
        n, heads, _, size = query_BHQD.shape
        kv = key_BHKD.shape[1]
        query_NKRD = (query_BHQD * scaling).to(key_BHKD.dtype).view(n, kv, heads // kv, size)
        query_PKGD = self._by_prompt(query_NKRD)
        prefix_PKGL = (query_PKGD @ held.prompt_keys_T).float()
        if self._bias_P11L is not None:
            prefix_PKGL += self._bias_P11L
        prefix_NKRL = self._by_completion(prefix_PKGL, heads // kv)
        own_NKRT = (query_NKRD @ key_BHKD.transpose(-1, -2)).float()
        weights = torch.cat([prefix_NKRL, own_NKRT], dim=-1).softmax(dim=-1).to(key_BHKD.dtype)
        length = prefix_NKRL.shape[-1]
        read_PKGD = self._by_prompt(weights[..., :length].contiguous()) @ held.prompt_values
        output = self._by_completion(read_PKGD, heads // kv) + weights[..., length:] @ value_BHKD
        return output.reshape(n, 1, heads, -1).to(query_BHQD.dtype)

    def _by_prompt(self, x_NKRX: Tensor) -> Tensor:
        """(N, KV, R, X) -> (P, KV, G * R, X); where a prompt has fewer, anything stands."""
        _, kv, r, x = x_NKRX.shape
        lines = x_NKRX if self._full else x_NKRX[self._source_PG]
        table = lines.view(-1, self._width, kv, r, x)
        return table.transpose(1, 2).reshape(-1, kv, self._width * r, x)

    def _by_completion(self, x_PKGX: Tensor, r: int) -> Tensor:
        """Inverse of `_by_prompt`."""
        _, kv, _, x = x_PKGX.shape
        table = x_PKGX.view(-1, kv, self._width, r, x).transpose(1, 2)
        lines = table.reshape(-1, kv, r, x)
        return lines if self._full else lines[self._place_N]


class _BranchingLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's part of a `PrefixCache`."""

    keys: Tensor
    values: Tensor
    prompt_keys_T: Tensor | None = None

    def branch(self, completions: int, room: int) -> None:
        # On a CPU the many small products cost less in float32 than the calls that avoid it.
        dtype = torch.float32 if self.keys.device.type == "cpu" else self.keys.dtype
        self.prompt_keys_T = self.keys.transpose(-1, -2).to(dtype).contiguous()
        self.prompt_values = self.values.to(dtype)
        _, heads, self._length, size = self.keys.shape
        rows = (completions, heads, room)
        self.keys = self.keys.new_empty(*rows, size, dtype=dtype)
        self.values = self.values.new_empty(*rows, self.values.shape[3], dtype=dtype)
        self._used = 0

    def keep(self, kept_N: Tensor) -> None:
        self.keys, self.values = self.keys[kept_N], self.values[kept_N]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if self.prompt_keys_T is None:
            read: tuple[Tensor, Tensor] = super().update(key_states, value_states)
            return read
        self.keys[:, :, self._used] = key_states[:, :, 0]
        self.values[:, :, self._used] = value_states[:, :, 0]
        self._used += 1
        return self.keys[:, :, : self._used], self.values[:, :, : self._used]

    def get_seq_length(self) -> int:
        if self.prompt_keys_T is None:
            return int(super().get_seq_length())
        return int(self._length + self._used)
