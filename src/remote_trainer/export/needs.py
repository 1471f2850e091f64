"""What an export needs, known before anything is trained: programs, packages, room on the disk."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path


def lacks_nothing(gguf_type: str) -> list[str]:
    """Of a format that needs no more than training does."""
    return []


def lacks_bitsandbytes(gguf_type: str) -> list[str]:
    """bitsandbytes, where it is not installed, with the way to get it."""
    return [] if find_spec("bitsandbytes") else ["bitsandbytes: install remote-trainer[train]"]


def missing_room_for(form: str, room: int, base: Path, target: Path) -> str | None:
    """Why the disk of ``target`` does not hold ``room`` times the base; None if it does."""
    weights = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    needed = room * weights
    there = next(
        parent for parent in (target, *target.absolute().parents) if os.path.exists(parent)
    )
    free = shutil.disk_usage(there).free
    if free >= needed:
        return None
    return (
        f"{form} needs {needed / 1e9:.1f} GB on the disk of {there} while it is written, and "
        f"{free / 1e9:.1f} GB are free; make room, or write to another folder"
    )
