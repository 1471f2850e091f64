"""Requirements of an export, checked before training: programs, packages, disk, memory."""

import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from math import prod
from pathlib import Path

from remote_trainer.export_formats import EXPORT_FORMATS
from remote_trainer.models.hardware import memory_gb
from remote_trainer.models.safetensors_header import tensors_in

_BYTES_16BIT = 2


def lacks_nothing(gguf_type: str) -> list[str]:
    """For formats without requirements beyond those of training."""
    return []


def lacks_bitsandbytes(gguf_type: str) -> list[str]:
    """bitsandbytes if it is not installed, with the command to install it."""
    return [] if find_spec("bitsandbytes") else ["bitsandbytes: install remote-trainer[train]"]


def missing_resources(form: str, base: Path, target: Path) -> Iterator[str]:
    """Disk space at ``target`` and memory of this machine that a format lacks."""
    files = sorted(base.glob("*.safetensors"))
    needed = EXPORT_FORMATS[form].disk_factor * sum(file.stat().st_size for file in files) / 1e9
    there = next(
        parent for parent in (target, *target.absolute().parents) if os.path.exists(parent)
    )
    free = shutil.disk_usage(there).free / 1e9
    if free < needed:
        yield (
            f"writing {form} needs up to {needed:.1f} GB on the disk of {there}, but only "
            f"{free:.1f} GB are free; free disk space, or write to another folder"
        )
    numbers = sum(prod(tensor.shape) for file in files for tensor in tensors_in(file).values())
    needed = EXPORT_FORMATS[form].memory_factor * numbers * _BYTES_16BIT / 1e9
    if memory_gb() < needed:
        yield (
            f"writing and verifying {form} needs up to {needed:.1f} GB of memory, but only "
            f"{memory_gb():.1f} GB are usable; export on a machine with more memory"
        )
