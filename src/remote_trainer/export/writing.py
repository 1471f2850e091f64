"""How each format is written, and how what was written is read again."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remote_trainer.export.proof import PRECISIONS, Expected, judge
from remote_trainer.export.source import Source
from remote_trainer.export.verify import read_with_llama_cpp, read_with_transformers
from remote_trainer.llama_cpp import convert as gguf
from remote_trainer.run_dir import temporary_folder

Proof = dict[str, Any]
Tell = Callable[[str], None]
"""Called with what an export does next; each step of a large model takes minutes."""

_MERGING = "merging the adapter into its base"
_READING = "reading it again in another process"


def write_lora(source: Source, folder: Path, tell: Tell) -> None:
    shutil.copytree(source.adapter, folder, dirs_exist_ok=True)


def prove_lora(source: Source, folder: Path, expected: Expected, tell: Tell) -> Proof:
    tell(_READING)
    reading, base = read_with_transformers(
        source.base, source.base, expected, "float32", folder, in_4bit=source.trained_in_4bit
    )
    return judge(expected, reading, base, PRECISIONS["float32"])


def write_lora_gguf(source: Source, folder: Path, tell: Tell) -> None:
    tell(f"converting the adapter to {source.gguf_type}")
    gguf.convert_lora(source.adapter, source.base, adapter_file(source, folder), source.gguf_type)


def prove_lora_gguf(source: Source, folder: Path, expected: Expected, tell: Tell) -> Proof:
    with _merge_base(source, folder, tell) as base, temporary_folder(folder) as scratch:
        beside = scratch / "base.gguf"
        tell("the base, to read the adapter beside it:")
        gguf.convert(base, beside, "f16", tell)
        tell(_READING)
        reading, base_there = read_with_llama_cpp(
            beside, beside, expected, adapter_file(source, folder)
        )
    # The base beside it is in 16 bits, so a finer adapter brings nothing finer.
    precision = _gguf_precision("f16" if source.gguf_type == "f32" else source.gguf_type)
    return judge(expected, reading, base_there, PRECISIONS[precision])


def write_merged_16bit(source: Source, folder: Path, tell: Tell) -> None:
    # It imports torch, which `check` and the light install do without.
    from remote_trainer.export import merged_16bit

    with _merge_base(source, folder, tell) as base:
        tell(_MERGING)
        merged_16bit.merge(base, source.adapter, folder)


def prove_merged_16bit(source: Source, folder: Path, expected: Expected, tell: Tell) -> Proof:
    # It imports torch, which `check` and the light install do without.
    from remote_trainer.export import merged_16bit

    with _merge_base(source, folder, tell) as base:
        dtype = str(merged_16bit.merged_dtype(base)).removeprefix("torch.")
        tell(_READING)
        reading, base_there = read_with_transformers(folder, base, expected, dtype)
    return judge(expected, reading, base_there, PRECISIONS[dtype])


def write_merged_4bit(source: Source, folder: Path, tell: Tell) -> None:
    # It imports torch, which `check` and the light install do without.
    from remote_trainer.export import merged_4bit, merged_16bit

    with _merge_base(source, folder, tell) as base, temporary_folder(folder) as scratch:
        tell(_MERGING)
        merged_16bit.merge(base, source.adapter, scratch)
        tell("quantising to 4 bits")
        merged_4bit.quantize(scratch, folder)


def prove_merged_4bit(source: Source, folder: Path, expected: Expected, tell: Tell) -> Proof:
    with _merge_base(source, folder, tell) as base:
        tell(_READING)
        reading, base_there = read_with_transformers(
            folder, base, expected, "bfloat16", in_4bit=True
        )
    return judge(expected, reading, base_there, PRECISIONS["4bit"])


def write_gguf(source: Source, folder: Path, tell: Tell) -> None:
    import torch

    # It imports torch, which `check` and the light install do without.
    from remote_trainer.export import merged_16bit

    with _merge_base(source, folder, tell) as base, temporary_folder(folder) as scratch:
        tell(_MERGING)
        # Not through 16 bits: every type is rounded once, from what was trained.
        merged_16bit.merge(base, source.adapter, scratch, torch.float32)
        gguf.convert(scratch, gguf_file(source, folder), source.gguf_type, tell)


def prove_gguf(source: Source, folder: Path, expected: Expected, tell: Tell) -> Proof:
    file = gguf_file(source, folder)
    with _merge_base(source, folder, tell) as base, temporary_folder(folder) as scratch:
        twin = scratch / file.name
        tell("the base in the same way, to compare with:")
        gguf.convert(base, twin, source.gguf_type, tell)
        tell(_READING)
        reading, base_there = read_with_llama_cpp(file, twin, expected)
        window = gguf.ignored_window(base, file)
    proof = judge(expected, reading, base_there, PRECISIONS[_gguf_precision(source.gguf_type)])
    return proof if window is None else {**proof, "ignored_window": window}


@contextmanager
def _merge_base(source: Source, folder: Path, tell: Tell) -> Iterator[Path]:
    """The folder of the weights that the adapter is added to."""
    if not source.merges_into_dequantized:
        yield source.base
        return
    # It imports torch, which `check` and the light install do without.
    from remote_trainer.export.dequantized import dequantize

    with temporary_folder(folder) as scratch:
        tell("writing out what the base's 4 bits stand for")
        dequantize(source.base, scratch)
        yield scratch


def gguf_file(source: Source, folder: Path) -> Path:
    """The one file of a GGUF export."""
    return folder / f"model-{source.gguf_type}.gguf"


def adapter_file(source: Source, folder: Path) -> Path:
    """The adapter for llama.cpp in a PEFT folder."""
    return folder / f"adapter-{source.gguf_type}.gguf"


def _gguf_precision(gguf_type: str) -> str:
    exact = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "8bit"}
    return exact.get(gguf_type, "4bit")
