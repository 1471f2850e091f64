"""Versions and hardware of a run, for environment.json and the model card."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("remote-trainer", "torch", "transformers", "trl", "peft", "accelerate", "tokenizers")
COMPUTING = ("bitsandbytes", "unsloth", "unsloth_zoo", "vllm", "triton", "xformers", "flash-attn")
"""Further packages whose kernels can affect results."""


def describe_environment() -> dict[str, Any]:
    """Versions and device, without host name and paths."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **{name: version_of(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpu_threads": str(torch.get_num_threads()),
    }


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
