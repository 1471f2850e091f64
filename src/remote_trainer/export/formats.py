"""One entry per format: how it is written, and how what was written is read again."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remote_trainer.errors import ExportError
from remote_trainer.export import gguf, merged_4bit, merged_16bit
from remote_trainer.export.proof import PRECISIONS, Expected, judge, unreadable
from remote_trainer.export.reading import read_with_llama_cpp, read_with_transformers
from remote_trainer.export.source import Source

Proof = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """``write`` fills an empty folder; ``prove`` reads it in a fresh process."""

    write: Callable[[Source, Path], None]
    prove: Callable[[Source, Path, Expected], Proof]
    needs: Callable[[Source], int]
    """Most bytes on disk while it is written, for 16-bit weights of the base's size."""


def prove(form: str, source: Source, folder: Path, expected: Expected) -> Proof:
    """Content of proof.json for what stands in ``folder``."""
    try:
        return FORMATS[form].prove(source, folder, expected)
    except ExportError as error:
        return unreadable(str(error))


def _write_lora(source: Source, folder: Path) -> None:
    shutil.copytree(source.adapter, folder, dirs_exist_ok=True)


def _prove_lora(source: Source, folder: Path, expected: Expected) -> Proof:
    reading, base = read_with_transformers(source.base, source.base, expected, "float32", folder)
    return judge(expected, reading, base, PRECISIONS["float32"])


def _write_merged_16bit(source: Source, folder: Path) -> None:
    merged_16bit.merge(source.base, source.adapter, folder)


def _prove_merged_16bit(source: Source, folder: Path, expected: Expected) -> Proof:
    dtype = str(merged_16bit.merged_dtype(source.base)).removeprefix("torch.")
    reading, base = read_with_transformers(folder, source.base, expected, dtype)
    return judge(expected, reading, base, PRECISIONS[dtype])


def _write_merged_4bit(source: Source, folder: Path) -> None:
    with _scratch(folder) as scratch:
        merged_16bit.merge(source.base, source.adapter, scratch)
        merged_4bit.quantize(scratch, folder)


def _prove_merged_4bit(source: Source, folder: Path, expected: Expected) -> Proof:
    reading, base = read_with_transformers(
        folder, source.base, expected, "bfloat16", base_in_4bit=True
    )
    return judge(expected, reading, base, PRECISIONS["4bit"])


def _write_gguf(source: Source, folder: Path) -> None:
    import torch

    if missing := gguf.missing_parts(source.gguf_type):
        raise ExportError("; ".join(missing))
    with _scratch(folder) as scratch:
        # Not through 16 bits: every type is rounded once, from what was trained.
        merged_16bit.merge(source.base, source.adapter, scratch, torch.float32)
        gguf.convert(scratch, gguf_file(source, folder), source.gguf_type)


def _prove_gguf(source: Source, folder: Path, expected: Expected) -> Proof:
    file = gguf_file(source, folder)
    with _scratch(folder) as scratch:
        twin = scratch / file.name
        gguf.convert(source.base, twin, source.gguf_type)
        reading, base = read_with_llama_cpp(file, twin, expected)
    return judge(expected, reading, base, PRECISIONS[_gguf_precision(source.gguf_type)])


def gguf_file(source: Source, folder: Path) -> Path:
    """The one file of a GGUF export."""
    return folder / f"model-{source.gguf_type}.gguf"


def _gguf_precision(gguf_type: str) -> str:
    exact = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "8bit"}
    return exact.get(gguf_type, "4bit")


def _scratch(folder: Path) -> "_Scratch":
    return _Scratch(dir=folder.parent, prefix=f".{folder.name}.")


class _Scratch(tempfile.TemporaryDirectory[str]):
    """A folder for what is needed on the way only, beside the export: the same disk."""

    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


FORMATS: Mapping[str, Format] = {
    "lora": Format(_write_lora, _prove_lora, lambda source: 0),
    "merged_16bit": Format(
        _write_merged_16bit, _prove_merged_16bit, lambda source: source.base_bytes
    ),
    "merged_4bit": Format(
        _write_merged_4bit, _prove_merged_4bit, lambda source: 2 * source.base_bytes
    ),
    # The merge in float32, an f16 file on the way to a quantised one, the file and its twin.
    "gguf": Format(_write_gguf, _prove_gguf, lambda source: 5 * source.base_bytes),
}
