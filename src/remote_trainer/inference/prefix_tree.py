"""Sequences that begin alike, as one row: every shared token stands there once.

A prefix tree of token ids is written down in preorder. A token sees its ancestors and itself, its
position id is its depth, so its hidden state is the one it has in a row of its own. This is what
makes a group of completions cost one prompt, and an answer behind a completion cost the answer.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch
from torch import Tensor

from remote_trainer.records import TokenIds

# L = tokens of a packed row, Q = queries and K = keys of a block, H = heads, D = head size

BLOCK_TOKENS, DEVICE_BLOCK_TOKENS = 128, 1024
"""Small blocks look at few tokens that they may not see, which counts on a CPU. On a device every
block costs some ten launches in each layer, which take longer than the few products they save."""


@dataclass(frozen=True)
class PackedRow:
    """Distinct beginnings of some sequences, in preorder."""

    ids: list[int]
    depths: list[int]
    """Position id of each token: how many tokens stand in front of it in its sequences."""
    ends: list[int]
    """Place behind the last token that has this one among its ancestors."""
    sequences: list[int]
    """Which of the packed sequences are in this row."""
    paths: list[list[int]]
    """For each of these its tokens' places in the row."""

    def __len__(self) -> int:
        return len(self.ids)


def pack(sequences: Sequence[TokenIds], most_tokens: int) -> Iterator[PackedRow]:
    """Rows of at most ``most_tokens`` tokens that hold all sequences (a longer one goes alone).

    Sequences that share a beginning come one behind the other; where a row is full, the beginning
    is written down again in the next.
    """
    row = _Builder()
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        if row.sequences and row.length_with(sequences[i]) > most_tokens:
            yield row.finish()
            row = _Builder()
        row.add(i, sequences[i])
    if row.sequences:
        yield row.finish()


class _Builder:
    """A preorder under construction; sequences come sorted, so only the last path can grow."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.depths: list[int] = []
        self.ends: list[int] = []
        self.sequences: list[int] = []
        self.paths: list[list[int]] = []

    def length_with(self, sequence: TokenIds) -> int:
        return len(self.ids) + len(sequence) - self._shared(sequence)

    def add(self, index: int, sequence: TokenIds) -> None:
        shared = self._shared(sequence)
        path = self.paths[-1] if self.paths else []
        self._close(path[shared:])
        places = list(range(len(self.ids), len(self.ids) + len(sequence) - shared))
        self.ids += sequence[shared:]
        self.depths += range(shared, len(sequence))
        self.ends += [0] * len(places)
        self.sequences.append(index)
        self.paths.append(path[:shared] + places)

    def finish(self) -> PackedRow:
        self._close(self.paths[-1])
        return PackedRow(self.ids, self.depths, self.ends, self.sequences, self.paths)

    def _shared(self, sequence: TokenIds) -> int:
        """How many tokens the sequence has in common with the last one."""
        path = self.paths[-1] if self.paths else []
        limit = min(len(path), len(sequence))
        return next((t for t in range(limit) if self.ids[path[t]] != sequence[t]), limit)

    def _close(self, places: list[int]) -> None:
        for place in places:
            self.ends[place] = len(self.ids)


@dataclass(frozen=True)
class _Block:
    """Neighbouring tokens, and the ranges of tokens that any of them may see."""

    start: int
    stop: int
    keys: list[slice]
    mask_QK: Tensor
    """True where the token of the row may see the token of the column."""


class TreeAttention:
    """Attention within one packed row; its cost grows with what is visible, not with the square.

    Fulfils `remote_trainer.models.attention.SharedAttention`.
    """

    def __init__(
        self, row: PackedRow, device: torch.device, block_tokens: int | None = None
    ) -> None:
        usual = BLOCK_TOKENS if device.type == "cpu" else DEVICE_BLOCK_TOKENS
        step = block_tokens or usual
        ends_L = torch.tensor(row.ends, device=device)
        self._blocks = [
            _block(row, ends_L, start, min(start + step, len(row)))
            for start in range(0, len(row), step)
        ]
        edges = {
            edge for block in self._blocks for key in block.keys for edge in (key.start, key.stop)
        }
        cuts = sorted(edges | {0, len(row)})
        self._sizes = [stop - start for start, stop in pairwise(cuts)]
        number = {cut: i for i, cut in enumerate(cuts)}
        self._pieces = [
            [i for key in block.keys for i in range(number[key.start], number[key.stop])]
            for block in self._blocks
        ]
        self._masks: dict[tuple[int, torch.dtype], list[Tensor]] = {}

    def attend(
        self, layer: int, query_BHQD: Tensor, key_BHKD: Tensor, value_BHKD: Tensor, scaling: float
    ) -> Tensor:
        """Output, (1, L, H, D); ``layer`` does not matter, all see the same tokens."""
        heads, groups = query_BHQD.shape[1], query_BHQD.shape[1] // key_BHKD.shape[1]
        sizes = [block.stop - block.start for block in self._blocks]
        queries = torch.split(query_BHQD, sizes, dim=2)
        # Cut once for all blocks: the gradient of every slice would be a row full of zeros.
        keys, values = (torch.split(x, self._sizes, dim=2) for x in (key_BHKD, value_BHKD))
        outputs = []
        for query, pieces, mask in zip(
            queries, self._pieces, self._masks_of(groups, query_BHQD.dtype), strict=True
        ):
            size = query.shape[2]
            # Heads that share a key head stand behind each other, so that no key is repeated.
            output = torch.nn.functional.scaled_dot_product_attention(
                query.reshape(1, -1, groups * size, query.shape[3]),
                torch.cat([keys[i] for i in pieces], dim=2),
                torch.cat([values[i] for i in pieces], dim=2),
                attn_mask=mask,
                scale=scaling,
            )
            outputs.append(output.reshape(1, heads, size, -1))
        return torch.cat(outputs, dim=2).transpose(1, 2)

    def _masks_of(self, groups: int, dtype: torch.dtype) -> list[Tensor]:
        """What attention adds to the scores of each block; made once for all layers."""
        if (groups, dtype) not in self._masks:
            self._masks[groups, dtype] = [
                torch.zeros_like(block.mask_QK, dtype=dtype)
                .masked_fill_(~block.mask_QK, -math.inf)
                .repeat(groups, 1)[None, None]
                for block in self._blocks
            ]
        return self._masks[groups, dtype]


def _block(row: PackedRow, ends_L: Tensor, start: int, stop: int) -> _Block:
    # What any token of the block sees in front of it are the ancestors of its first one.
    keys = [*_ranges([k for k in range(start) if row.ends[k] > start]), slice(start, stop)]
    key_K = torch.cat([torch.arange(k.start, k.stop, device=ends_L.device) for k in keys])
    query_Q1 = torch.arange(start, stop, device=ends_L.device)[:, None]
    return _Block(start, stop, keys, (key_K <= query_Q1) & (query_Q1 < ends_L[key_K]))


def _ranges(places: list[int]) -> Iterator[slice]:
    """Ascending numbers as the fewest ranges."""
    for _, neighbours in groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
        run = [place for _, place in neighbours]
        yield slice(run[0], run[-1] + 1)
