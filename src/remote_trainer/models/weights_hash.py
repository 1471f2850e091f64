"""A hash of the weights in a model folder, independent of its name and of sharding."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from remote_trainer.cache_folder import cache_folder
from remote_trainer.errors import UserInputError
from remote_trainer.json_files import read_object
from remote_trainer.models.safetensors_header import read_header, tensors_in
from remote_trainer.run_dir import write_json

logger = logging.getLogger(__name__)

_LAYOUT = 1  # increase when the same weights give another hash
_CHUNK = 1 << 24
_PLAIN_NAME = re.compile(r"\w[\w.-]{0,200}\.safetensors", re.ASCII)
"""Of a file in the same folder: no path that leads elsewhere."""
REPORTED_BYTES = 1 << 30
"""Hashing this many bytes takes seconds and is reported."""


def weights_sha256(folder: Path, on_stage: Callable[[str], None] = lambda text: None) -> str:
    """Hex digest over name, type, shape and bytes of every tensor, sorted by name.

    Cached until path, size or modification time of a file changes. Raises UserInputError for a
    file that is not a complete safetensors file.
    """
    files = weight_files(folder)
    kept = cache_folder() / "weights" / f"{_key(files)}.json"
    if kept.exists():
        return str(json.loads(kept.read_text(encoding="utf-8"))["sha256"])
    size = sum(file.stat().st_size for file in files)
    if size >= REPORTED_BYTES:
        on_stage(f"hashing the {size / 1e9:.1f} GB of {folder}")
    digest = _digest(files)
    try:
        write_json(kept, {"sha256": digest})
    except OSError as error:
        logger.warning(
            "%s cannot be written (%s); the weights will be hashed again", kept, error.strerror
        )
    return digest


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model, without unrelated ones in the folder.

    Raises UserInputError for an index that names anything but such files of this folder.
    """
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.exists():
        return [folder / name for name in _names_in(index)]
    return [whole] if whole.exists() else sorted(folder.glob("*.safetensors"))


def _names_in(index: Path) -> list[str]:
    try:
        weights = read_object(index).get("weight_map")
    except (OSError, ValueError) as error:
        raise UserInputError.at(
            str(index), f"cannot be read as JSON: {error}; copy or download the model again"
        ) from None
    names = list(weights.values()) if isinstance(weights, dict) else [weights]
    for name in names:
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
            raise UserInputError.at(
                str(index),
                f"weight_map names {name!r}, which is no safetensors file of the folder; copy or "
                "download the model again",
            )
    return sorted(set(map(str, names)))


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    with ExitStack() as opened:
        tensors = []
        for file in files:
            tensors_in(file)  # refuses incomplete files
            handle = opened.enter_context(file.open("rb"))
            header, start = read_header(handle)
            tensors += [(name, facts, start, handle) for name, facts in header.items()]
        for name, facts, start, handle in sorted(tensors, key=lambda tensor: tensor[0]):
            digest.update(json.dumps([name, facts["dtype"], facts["shape"]]).encode())
            begin, end = facts["data_offsets"]
            handle.seek(start + begin)
            for at in range(begin, end, _CHUNK):
                digest.update(handle.read(min(_CHUNK, end - at)))
    return digest.hexdigest()


def _key(files: Sequence[Path]) -> str:
    facts = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hashlib.sha256(json.dumps([_LAYOUT, facts]).encode()).hexdigest()[:32]
