"""Finds out what the choice of an engine depends on; imports only torch, to detect a GPU."""

from functools import cache
from importlib.util import find_spec

from remote_trainer.engines.selection import Facts
from remote_trainer.models.hardware import find_torch


@cache
def find_facts() -> Facts:
    """GPU and packages; imports torch if it is installed."""
    torch = find_torch()
    first = torch.gpus[0] if torch and torch.gpus else None
    return Facts(
        cuda=first is not None,
        capability=first.capability if first else None,
        gpu=first.name if first else None,
        bitsandbytes=_installed("bitsandbytes"),
        unsloth=_installed("unsloth"),
        vllm=_installed("vllm"),
        bnb_plugin=_installed("vllm_bnb_plugin"),
    )


def offers_unsloth() -> bool:
    """Whether the packages are installed, so that looking for a GPU makes sense."""
    return _installed("unsloth") and _installed("vllm")


def _installed(package: str) -> bool:
    return find_spec(package) is not None
