"""Requirements of an export, checked before training: programs, packages, disk space."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path


def lacks_nothing(gguf_type: str) -> list[str]:
    """For formats without requirements beyond those of training."""
    return []


def lacks_bitsandbytes(gguf_type: str) -> list[str]:
    """bitsandbytes if it is not installed, with the command to install it."""
    return [] if find_spec("bitsandbytes") else ["bitsandbytes: install remote-trainer[train]"]


def disk_shortage_for(form: str, factor: int, base: Path, target: Path) -> str | None:
    """Why the disk of ``target`` is too small for ``factor`` times the base; None: it is not."""
    weights = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    needed = factor * weights
    there = next(
        parent for parent in (target, *target.absolute().parents) if os.path.exists(parent)
    )
    free = shutil.disk_usage(there).free
    if free >= needed:
        return None
    return (
        f"writing {form} needs up to {needed / 1e9:.1f} GB on the disk of {there}, but only "
        f"{free / 1e9:.1f} GB are free; free disk space, or write to another folder"
    )
