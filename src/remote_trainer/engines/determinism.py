"""Kernels of torch that give the same bits every time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACE = ":4096:8"
"""One of the two values with which cuBLAS is deterministic; it is read at its first product."""


@contextmanager
def deterministic_kernels(on: bool) -> Iterator[None]:
    """In here torch computes with deterministic kernels alone; afterwards as before.

    Enter before the first product on a GPU. An operation that has no such kernel raises
    RuntimeError. A value of the user's own for cuBLAS wins.
    """
    if not on:
        yield
        return
    import torch

    os.environ.setdefault(CUBLAS, WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled()
    # Not as a warning: with that, attention's backward pass would stay as it is.
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
