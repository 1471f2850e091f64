"""The base's weights under an adapter stay the same bits where TRL merges the adapter into them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from remote_trainer.errors import EngineError

# R, C = rows and columns of a weight

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a number -> the dtype that shows its bits."""


class BaseWeights:
    """Puts back what merging and unmerging rounded, a little more with every update.

    The base is frozen, so it is copied to ordinary memory once, before the first merge: as much as
    the layers that carry an adapter. From then on the device computes checksums, and only weights
    whose checksum changed are sent back to it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._weights: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._checksums: list[Tensor] = []

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """In here the adapter may be merged and unmerged; raises EngineError where the base
        changed since the copy, which would undo that."""
        self._keep()
        changed = self._changed()
        if changed:
            raise EngineError(
                f"{len(changed)} weights of the base model changed between two rollouts, although "
                "only the adapter is trained"
            )
        try:
            yield
        finally:
            with torch.no_grad():
                for place in self._changed():
                    self._weights[place].copy_(self._copies[place])

    def _keep(self) -> None:
        if self._copies:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [module for module in self._model.modules() if isinstance(module, BaseTunerLayer)]
        self._weights = [layer.get_base_layer().weight for layer in layers]
        self._copies = [weight.detach().to("cpu", copy=True) for weight in self._weights]
        self._checksums = [checksum(weight) for weight in self._weights]

    def _changed(self) -> list[int]:
        """Places of weights whose bits are not those of their copies; waits for the device once."""
        if not self._weights:
            return []
        pairs = zip(self._weights, self._checksums, strict=True)
        differ_W = torch.stack([checksum(weight) != kept for weight, kept in pairs])
        return [place for place, differs in enumerate(differ_W.tolist()) if differs]


def checksum(weight: Tensor) -> Tensor:
    """Of the bits of a weight and of their places: an int64 on its device, without a copy of it.

    Sums of rows and of columns, each weighed by a random number of its own, modulo 2**64.
    """
    flat_RC = weight.detach().contiguous().view(len(weight), -1)
    bits_RC = flat_RC.view(_INTEGERS[weight.element_size()])
    by_row_R, by_column_C = (bits_RC.sum(dim, dtype=torch.int64) for dim in (1, 0))
    sums = (by_row_R, by_column_C)
    return torch.stack([(each * _multipliers(len(each), each.device)).sum() for each in sums]).sum()


@cache
def _multipliers(count: int, device: torch.device) -> Tensor:
    """The same odd numbers at every call."""
    draw = torch.Generator().manual_seed(count)
    numbers = torch.randint(-(2**62), 2**62, (count,), generator=draw) * 2 + 1
    return numbers.to(device)
