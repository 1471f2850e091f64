"""Versions and hardware of a run, for environment.json and the model card."""

import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("remote-trainer", "torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
COMPUTING = ("bitsandbytes", "unsloth", "unsloth_zoo", "vllm", "triton", "xformers", "flash-attn")
"""Further packages whose kernels can affect results."""
_DECIDING = {name: name for name in PACKAGES[1:6]} | {
    "device": "device",
    "processor": "processor",
    "cpu_threads": "CPU threads",
}
"""Key of `describe_environment` -> its name in a sentence."""


def describe_environment() -> dict[str, Any]:
    """Versions and device, without host name and paths."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **{name: version_of(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "processor": processor(),
        "cpu_threads": str(torch.get_num_threads()),
    }


def processor() -> str:
    """Its model name."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.M)
    return found[1] if found else platform.processor() or platform.machine()


def what_differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What decides over the last bits of a run and is not as in ``before``, for people.

    Both as `describe_environment` returns them; a key that one of them lacks is not compared.
    """
    found = [
        f"{name} {before[key]} before, {now[key]} now"
        for key, name in _DECIDING.items()
        if key in before and key in now and before[key] != now[key]
    ]
    return "; ".join(found) or None


def numeric_state() -> dict[str, str]:
    """What beside `describe_environment` decides over the last bits of a model's numbers: further
    packages, the processor's instructions, and the switches of torch."""
    import torch

    cuda: Any = torch.backends.cuda
    cpu: Any = torch.backends.mkldnn
    switches = {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "matmul_precision": (
            cuda.matmul.fp32_precision,
            cpu.matmul.fp32_precision,
        ),
        "reduced_precision": (
            cuda.matmul.allow_fp16_reduced_precision_reduction,
            cuda.matmul.allow_bf16_reduced_precision_reduction,
        ),
        "attention": (
            cuda.flash_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
            cuda.cudnn_sdp_enabled(),
        ),
        "onednn": cpu.enabled,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    packages = {name: version_of(name) for name in COMPUTING}
    return packages | {name: str(value) for name, value in switches.items()}


def version_of(package: str) -> str:
    """The version of an installed package, from its metadata, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
