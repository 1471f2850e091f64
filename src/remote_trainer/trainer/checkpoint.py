"""Checkpoints without pickle: tensors as safetensors, everything else as JSON, manifest last.

A folder is a checkpoint only if its manifest lists every file with its hash. If the process is
killed while it writes, the folder has no manifest and is ignored.
"""

import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file

from remote_trainer.errors import UserInputError
from remote_trainer.faults import fault_point
from remote_trainer.json_files import read_object
from remote_trainer.run_dir import (
    CHECKPOINT_ADAPTER,
    MANIFEST,
    RunDir,
    file_sha256,
    sync_file,
    sync_folder,
    write_json,
)

OPTIMIZER, RNG = "optimizer.safetensors", "rng.safetensors"
STATE, TRAINER_STATE = "state.json", "trainer_state.json"
RANDOM = "random.json"
_NEEDED = frozenset({CHECKPOINT_ADAPTER, OPTIMIZER, RNG, STATE, TRAINER_STATE})
_UNFIT = (SafetensorError, ValueError, LookupError, TypeError, AttributeError)
PROCESSES = "processes"
"""In the manifest: number of processes, if there were several."""


def write_adapter(folder: Path, model: Any) -> None:
    """Write the tensors of the adapter."""
    _save_tensors(folder / CHECKPOINT_ADAPTER, get_peft_model_state_dict(model))
    fault_point("save:adapter")


def read_adapter(folder: Path, model: Any) -> None:
    """Load the tensors of a checkpoint into the adapter of ``model``."""
    read_tensors(folder / CHECKPOINT_ADAPTER, model)


def read_tensors(file: Path, model: Any) -> None:
    """Load all tensors of a file into the adapter of ``model``.

    Raises UserInputError unless file and adapter have the same tensors.
    """
    try:
        result = set_peft_model_state_dict(model, load_file(file))
    except (RuntimeError, SafetensorError) as error:  # torch raises the first for other sizes
        raise UserInputError.at(
            str(file), f"does not fit the adapter of the model: {error}"
        ) from None
    missing = [key for key in result.missing_keys if ".lora_" in key]
    if missing or result.unexpected_keys:
        raise UserInputError.at(
            str(file),
            f"does not fit the adapter of the model: {len(missing)} of its weights are not in the "
            f"file, {len(result.unexpected_keys)} in the file are not in the adapter (for example "
            f"{[*missing, *result.unexpected_keys][0]})",
        )


def write_state(folder: Path, optimizer: Any, scheduler: Any, counters: Mapping[str, Any]) -> None:
    """Write optimizer, learning-rate schedule, random states and the trainer's counters."""
    state = optimizer.state_dict()
    tensors, numbers = _split_optimizer(state["state"])
    _save_tensors(folder / OPTIMIZER, tensors)
    fault_point("save:optimizer")
    _save_tensors(folder / RNG, _random_tensors())
    fault_point("save:rng")
    write_json(
        folder / STATE,
        {
            "optimizer": {"numbers": numbers, "param_groups": state["param_groups"]},
            "scheduler": _jsonable(scheduler.state_dict()),
            "random": _random_numbers(),
            "counters": dict(counters),
        },
    )
    fault_point("save:state")


def read_state(folder: Path, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """Inverse of `write_state`, without the random states; returns the counters.

    Raises UserInputError for files of another form.
    """
    with _as_written(folder):
        return _read_state(folder, optimizer, scheduler)


def _read_state(folder: Path, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    saved = json.loads((folder / STATE).read_text(encoding="utf-8"))
    optimizer.load_state_dict(
        {
            "state": _join_optimizer(load_file(folder / OPTIMIZER), saved["optimizer"]["numbers"]),
            "param_groups": saved["optimizer"]["param_groups"],
        }
    )
    scheduler.load_state_dict(saved["scheduler"])
    return dict(saved["counters"])


def read_counters(folder: Path) -> dict[str, Any]:
    """The trainer's counters. Raises UserInputError for a file of another form."""
    with _as_written(folder):
        return dict(json.loads((folder / STATE).read_text(encoding="utf-8"))["counters"])


@dataclass(frozen=True)
class RandomStreams:
    """Random states of Python, numpy and torch in a process."""

    tensors: bytes
    """As a safetensors file, because processes exchange them."""
    numbers: Mapping[str, Any]

    @classmethod
    def now(cls) -> Self:
        """Those of this process."""
        return cls(save(_random_tensors()), _random_numbers())


def write_random(folder: Path, others: Sequence[RandomStreams]) -> None:
    """Write the random states of the other processes, in their order."""
    for index, streams in enumerate(others, start=1):
        (folder / _of_process(RNG, index)).write_bytes(streams.tensors)
        write_json(folder / _of_process(RANDOM, index), streams.numbers)


def restore_random(folder: Path, process: int = 0) -> None:
    """Restore the random states of a process; those of the main process if the run had fewer
    processes. Raises UserInputError for files of another form."""
    with _as_written(folder):
        _restore_random(folder, process)


def _restore_random(folder: Path, process: int) -> None:
    if process and (folder / _of_process(RNG, process)).exists():
        saved = json.loads((folder / _of_process(RANDOM, process)).read_text(encoding="utf-8"))
        tensors = load_file(folder / _of_process(RNG, process))
    else:
        saved = json.loads((folder / STATE).read_text(encoding="utf-8"))["random"]
        tensors = load_file(folder / RNG)
    version, words, gauss = saved["python"]
    random.setstate((version, tuple(words), gauss))
    name, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy(), position, has_gauss, cached))
    try:
        torch.set_rng_state(tensors["torch"])
    except RuntimeError as error:  # of another size
        raise ValueError(str(error)) from error
    if torch.cuda.is_available() and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"])


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """List every file with size and hash, which makes the folder a checkpoint."""
    files = {}
    for file in sorted(folder.iterdir()):
        sync_file(file)
        files[file.name] = {"bytes": file.stat().st_size, "sha256": file_sha256(file)}
    sync_folder(folder)
    write_json(folder / MANIFEST, {**facts, "files": files})
    sync_folder(folder.parent)
    fault_point("save:manifest")


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, after a check of all file hashes.

    Raises UserInputError that names the folder or the first damaged file.
    """
    try:
        manifest = read_object(folder / MANIFEST)
        listed = _listed(manifest)
    except (OSError, ValueError) as error:
        raise UserInputError.at(
            str(folder), f"no usable {MANIFEST} ({error}); write the folder of a checkpoint"
        ) from None
    for name, sha256 in listed.items():
        file = folder / name
        if not file.is_file() or file_sha256(file) != sha256:
            raise UserInputError.at(
                str(file), "missing or changed since it was written; use an earlier checkpoint"
            )
    return manifest


def _listed(manifest: Mapping[str, Any]) -> dict[str, str]:
    """File name -> sha256; raises ValueError for entries of another form, and for missing ones."""
    files = manifest.get("files")
    if not isinstance(files, dict) or not set(files) >= _NEEDED:
        raise ValueError("it does not list the files of a checkpoint")
    for name, facts in files.items():
        found = facts.get("sha256") if isinstance(facts, dict) else None
        if Path(name).name != name or not isinstance(found, str):
            raise ValueError(f"it has a wrong entry for {name!r}")
    return {name: facts["sha256"] for name, facts in files.items()}


@contextmanager
def _as_written(folder: Path) -> Iterator[None]:
    """The files of a checkpoint are those of its manifest, but need not be ours: what they raise
    becomes a UserInputError that names the folder."""
    try:
        yield
    except UserInputError:
        raise
    except _UNFIT as error:
        raise UserInputError.at(
            str(folder),
            f"its files are not those of a checkpoint ({type(error).__name__}: {error}); use "
            "another checkpoint",
        ) from error


def newest_checkpoint(run: RunDir) -> Path | None:
    """The newest undamaged checkpoint, or None."""
    for folder in reversed(run.complete_checkpoints()):
        try:
            verify(folder)
        except UserInputError:
            continue
        return folder
    return None


def drop_after(run: RunDir, step: int) -> None:
    """Delete checkpoints after ``step``, so that none is resumed: their updates are repeated."""
    for folder in run.complete_checkpoints():
        if folder > run.checkpoint(step):
            shutil.rmtree(folder)


def prune(run: RunDir, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints, and incomplete folders."""
    complete = run.complete_checkpoints()
    for folder in run.checkpoints.iterdir():
        if folder not in complete[-keep:]:
            shutil.rmtree(folder, ignore_errors=True)
    fault_point("save:pruned")


def _of_process(name: str, index: int) -> str:
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{index}{dot}{suffix}"


def _save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)


def _split_optimizer(
    state: Mapping[int, Mapping[str, Any]],
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Per-parameter state as tensors and numbers with keys ``index.name``."""
    tensors, numbers = {}, {}
    for index, values in state.items():
        for name, value in values.items():
            key = f"{index}.{name}"
            if isinstance(value, torch.Tensor):
                tensors[key] = value
            else:
                numbers[key] = value
    return tensors, numbers


def _join_optimizer(
    tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return state


def _random_tensors() -> dict[str, torch.Tensor]:
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.random.get_state()[1].copy()),  # type: ignore[index]
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def _random_numbers() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, _, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, int(position), int(has_gauss), float(cached)],
    }


def _jsonable(state: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON-serialisable part of a scheduler's state; the config recreates its functions."""
    kept = {}
    for key, value in state.items():
        try:
            json.dumps(value)
        except TypeError:
            continue
        kept[key] = value
    return kept
