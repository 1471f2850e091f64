"""What this machine and environment offer; nothing is loaded but torch, to ask for a GPU."""

from functools import cache
from importlib.util import find_spec

from remote_trainer.engine.choice import Facts


@cache
def find_facts() -> Facts:
    """GPU and packages; imports torch where it is installed."""
    cuda, capability, gpu = _first_gpu()
    return Facts(
        cuda=cuda,
        capability=capability,
        gpu=gpu,
        bitsandbytes=_installed("bitsandbytes"),
        unsloth=_installed("unsloth"),
        vllm=_installed("vllm"),
        bnb_plugin=_installed("vllm_bnb_plugin"),
    )


def offers_unsloth() -> bool:
    """Whether the packages are there, so that it is worth asking for a GPU."""
    return _installed("unsloth") and _installed("vllm")


def _first_gpu() -> tuple[bool, tuple[int, int] | None, str | None]:
    if not _installed("torch"):
        return False, None, None
    import torch

    if not torch.cuda.is_available():
        return False, None, None
    major, minor = torch.cuda.get_device_capability(0)
    return True, (major, minor), torch.cuda.get_device_name(0)


def _installed(package: str) -> bool:
    return find_spec(package) is not None
