"""How each format is written and verified."""

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
OnStage = Callable[[str], None]
"""Called with the next step of an export; for large models each takes minutes."""

_MERGING = "merging the adapter into its base"
_READING = "verifying the export in another process"


def write_lora(source: Source, folder: Path, on_stage: OnStage) -> None:
    shutil.copytree(source.adapter, folder, dirs_exist_ok=True)


def prove_lora(source: Source, folder: Path, expected: Expected, on_stage: OnStage) -> Proof:
    on_stage(_READING)
    reading, base = read_with_transformers(
        source.base, source.base, expected, "float32", folder, in_4bit=source.trained_in_4bit
    )
    return judge(expected, reading, base, PRECISIONS["float32"])


def write_lora_gguf(source: Source, folder: Path, on_stage: OnStage) -> None:
    on_stage(f"converting the adapter to {source.gguf_type}")
    gguf.convert_lora(source.adapter, source.base, adapter_file(source, folder), source.gguf_type)


def prove_lora_gguf(source: Source, folder: Path, expected: Expected, on_stage: OnStage) -> Proof:
    with _merge_base(source, folder, on_stage) as base, temporary_folder(folder) as scratch:
        base_gguf = scratch / "base.gguf"
        on_stage("converting the base model, for verifying the adapter:")
        gguf.convert(base, base_gguf, "f16", on_stage)
        on_stage(_READING)
        reading, base_there = read_with_llama_cpp(
            base_gguf, base_gguf, expected, adapter_file(source, folder)
        )
    # The base is in 16 bits, so a more precise adapter does not help.
    precision = _gguf_precision("f16" if source.gguf_type == "f32" else source.gguf_type)
    return judge(expected, reading, base_there, PRECISIONS[precision])


def write_merged_16bit(source: Source, folder: Path, on_stage: OnStage) -> None:
    # It imports torch, which `check` and the light install do not need.
    from remote_trainer.export import merged_16bit

    with _merge_base(source, folder, on_stage) as base:
        on_stage(_MERGING)
        merged_16bit.merge(base, source.adapter, folder)


def prove_merged_16bit(
    source: Source, folder: Path, expected: Expected, on_stage: OnStage
) -> Proof:
    # It imports torch, which `check` and the light install do not need.
    from remote_trainer.export import merged_16bit

    with _merge_base(source, folder, on_stage) as base:
        dtype = str(merged_16bit.merged_dtype(base)).removeprefix("torch.")
        on_stage(_READING)
        reading, base_there = read_with_transformers(folder, base, expected, dtype)
    return judge(expected, reading, base_there, PRECISIONS[dtype])


def write_merged_4bit(source: Source, folder: Path, on_stage: OnStage) -> None:
    # It imports torch, which `check` and the light install do not need.
    from remote_trainer.export import merged_4bit, merged_16bit

    with _merge_base(source, folder, on_stage) as base, temporary_folder(folder) as scratch:
        on_stage(_MERGING)
        merged_16bit.merge(base, source.adapter, scratch)
        on_stage("quantising to 4 bits")
        merged_4bit.quantize(scratch, folder)


def prove_merged_4bit(source: Source, folder: Path, expected: Expected, on_stage: OnStage) -> Proof:
    with _merge_base(source, folder, on_stage) as base:
        on_stage(_READING)
        reading, base_there = read_with_transformers(
            folder, base, expected, "bfloat16", in_4bit=True
        )
    return judge(expected, reading, base_there, PRECISIONS["4bit"])


def write_gguf(source: Source, folder: Path, on_stage: OnStage) -> None:
    import torch

    # It imports torch, which `check` and the light install do not need.
    from remote_trainer.export import merged_16bit

    with _merge_base(source, folder, on_stage) as base, temporary_folder(folder) as scratch:
        on_stage(_MERGING)
        # Not via 16 bits: every type is rounded only once, from the float32 merge.
        merged_16bit.merge(base, source.adapter, scratch, torch.float32)
        gguf.convert(scratch, gguf_file(source, folder), source.gguf_type, on_stage)


def prove_gguf(source: Source, folder: Path, expected: Expected, on_stage: OnStage) -> Proof:
    file = gguf_file(source, folder)
    with _merge_base(source, folder, on_stage) as base, temporary_folder(folder) as scratch:
        twin = scratch / file.name
        on_stage("converting the base model the same way, for comparison:")
        gguf.convert(base, twin, source.gguf_type, on_stage)
        on_stage(_READING)
        reading, base_there = read_with_llama_cpp(file, twin, expected)
        window = gguf.ignored_window(base, file)
    proof = judge(expected, reading, base_there, PRECISIONS[_gguf_precision(source.gguf_type)])
    return proof if window is None else {**proof, "ignored_window": window}


@contextmanager
def _merge_base(source: Source, folder: Path, on_stage: OnStage) -> Iterator[Path]:
    """The folder of the weights that the adapter is merged into."""
    if not source.merges_into_dequantized:
        yield source.base
        return
    # It imports torch, which `check` and the light install do not need.
    from remote_trainer.export.dequantized import dequantize

    with temporary_folder(folder) as scratch:
        on_stage("dequantising the 4-bit base model")
        dequantize(source.base, scratch)
        yield scratch


def gguf_file(source: Source, folder: Path) -> Path:
    """The file of a GGUF export."""
    return folder / f"model-{source.gguf_type}.gguf"


def adapter_file(source: Source, folder: Path) -> Path:
    """The adapter for llama.cpp in a PEFT folder."""
    return folder / f"adapter-{source.gguf_type}.gguf"


def _gguf_precision(gguf_type: str) -> str:
    exact = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "q8_0": "8bit"}
    return exact.get(gguf_type, "4bit")
