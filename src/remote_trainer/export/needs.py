"""What an export needs, known before anything is trained: programs, packages, room on the disk."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from remote_trainer.llama_cpp import convert as gguf

# Most room while it is written, in sizes of the base's weights in 16 bits. A GGUF takes a merge in
# float32, a 16-bit file on the way to a quantised one, the file itself and its twin of the base; an
# adapter's GGUF one of the base, which may be dequantised in float32 first.
ROOM = {"lora": 0, "lora_gguf": 3, "merged_16bit": 1, "merged_4bit": 2, "gguf": 5}


def missing_parts(form: str, gguf_type: str) -> list[str]:
    """What this environment lacks for a format, each with the way to get it."""
    if form in ("gguf", "lora_gguf"):
        return gguf.missing_parts(gguf_type)
    if form == "merged_4bit" and find_spec("bitsandbytes") is None:
        return ["bitsandbytes: install remote-trainer[train]"]
    return []


def missing_room(form: str, base: Path, target: Path) -> str | None:
    """Why the disk of ``target`` does not hold what writing the format takes; None if it does."""
    weights = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    needed = ROOM[form] * weights
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
