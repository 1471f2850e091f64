"""What a run stood on: versions and device, for environment.json and the model card."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("remote-trainer", "torch", "transformers", "trl", "peft", "accelerate", "tokenizers")


def describe_environment() -> dict[str, Any]:
    """Versions and device; the machine's name and paths stay out."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **{name: version_of(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpu_threads": str(torch.get_num_threads()),
    }


def version_of(package: str) -> str:
    """Of an installed package, from its metadata: nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
