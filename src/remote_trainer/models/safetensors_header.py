"""What stands in a safetensors file, read from its header: no weight comes into memory.

huggingface_hub reads headers, too, but takes a file whose weights are cut off, does not say where
the weights begin, and takes 0.15 s to import, a sixth of what `check` takes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from remote_trainer.errors import UserInputError

_LENGTH_BYTES = 8
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class TensorFacts:
    """One tensor of a file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def is_matrix(self) -> bool:
        """Two axes of plain numbers; packed 4-bit weights are none."""
        return self.dtype in FLOATS and len(self.shape) == 2


def tensors_in(file: Path) -> dict[str, TensorFacts]:
    """Every tensor of a file by name.

    Raises UserInputError if the file is cut short or no safetensors file.
    """
    try:
        with file.open("rb") as handle:
            found, start = read_header(handle)
            size = file.stat().st_size
        end = max((facts["data_offsets"][1] for facts in found.values()), default=0)
        if start + end != size:
            raise ValueError(f"{size} bytes, where its header speaks of others")
        return {name: TensorFacts(f["dtype"], tuple(f["shape"])) for name, f in found.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserInputError.at(
            str(file), f"is no whole safetensors file ({error}); copy or download it again"
        ) from None


def read_header(handle: BinaryIO) -> tuple[dict[str, Any], int]:
    """(what the file says of each tensor, where their bytes begin); ValueError if it is too short.

    The ``data_offsets`` of a tensor count from there.
    """
    length = int.from_bytes(handle.read(_LENGTH_BYTES), "little")
    size = handle.seek(0, 2)
    if length > size:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    handle.seek(_LENGTH_BYTES)
    header = json.loads(handle.read(length))
    return {n: f for n, f in header.items() if n != "__metadata__"}, _LENGTH_BYTES + length
