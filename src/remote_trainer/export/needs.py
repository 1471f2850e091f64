"""What an export needs, known before anything is trained: programs, packages, disk and memory."""

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
    """Of a format that needs no more than training does."""
    return []


def lacks_bitsandbytes(gguf_type: str) -> list[str]:
    """bitsandbytes, where it is not installed, with the way to get it."""
    return [] if find_spec("bitsandbytes") else ["bitsandbytes: install remote-trainer[train]"]


def missing_resources(form: str, base: Path, target: Path) -> Iterator[str]:
    """What writing a format takes and the disk of ``target`` or this machine does not have."""
    files = sorted(base.glob("*.safetensors"))
    needed = EXPORT_FORMATS[form].room * sum(file.stat().st_size for file in files) / 1e9
    there = next(
        parent for parent in (target, *target.absolute().parents) if os.path.exists(parent)
    )
    free = shutil.disk_usage(there).free / 1e9
    if free < needed:
        yield (
            f"{form} needs {needed:.1f} GB on the disk of {there} while it is written, and "
            f"{free:.1f} GB are free; make room, or write to another folder"
        )
    numbers = sum(prod(tensor.shape) for file in files for tensor in tensors_in(file).values())
    needed = EXPORT_FORMATS[form].memory * numbers * _BYTES_16BIT / 1e9
    if memory_gb() < needed:
        yield (
            f"{form} needs {needed:.1f} GB of memory while it is written and read again, and "
            f"{memory_gb():.1f} GB can be used here; export on a machine with more memory"
        )
