"""Sequences that begin alike, as one row: every shared token stands there once.

A prefix tree of token ids is written down in preorder. A token sees its ancestors and itself, its
position id is its depth, so its hidden state is the one it has in a row of its own. This is what
makes a group of completions cost one prompt, and an answer behind a completion cost the answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from remote_trainer.records import TokenIds

# L = tokens of a packed row, S = sequences of a packed row


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


def visible(row: PackedRow, device: torch.device) -> Tensor:
    """(1, 1, L, L) mask, True where the token of the row may see the token of the column."""
    place_L = torch.arange(len(row), device=device)
    end_L = torch.tensor(row.ends, device=device)
    mask_LL = (place_L[None, :] <= place_L[:, None]) & (place_L[:, None] < end_L[None, :])
    return mask_LL[None, None]
