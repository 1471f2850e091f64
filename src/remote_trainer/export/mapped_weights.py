"""Weights of a large model in files on the disk, of which memory holds what is being read."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor


def mapped(parts: Iterable[Tensor], shape: torch.Size, folder: Path) -> Tensor:
    """A tensor of ``shape``, whose flat ``parts`` are written to a file in ``folder`` one by one.

    The file has no name afterwards: its room on the disk is free when the tensor is, also when the
    process is killed. Raises OSError where the disk is full.
    """
    file, dtype = folder / "weight", torch.float32
    with file.open("wb") as handle:
        for part in parts:
            dtype = part.dtype
            part.cpu().contiguous().view(torch.uint8).numpy().tofile(handle)
    weight = torch.from_file(str(file), shared=False, size=shape.numel(), dtype=dtype)
    file.unlink()
    return weight.view(shape)
