"""Copies of the adapter at earlier updates, in memory and in checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from remote_trainer.faults import fault_point


@dataclass(frozen=True)
class AdapterCopy:
    """The tensors of the adapter after ``step`` updates, on the CPU."""

    step: int
    tensors: Mapping[str, torch.Tensor]


class KeptAdapters:
    """Named copies of one model's adapter; a new copy replaces the one of the same name."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kept: dict[str, AdapterCopy] = {}

    @property
    def steps(self) -> dict[str, int]:
        """Name of each copy -> updates before it was made."""
        return {name: kept.step for name, kept in self._kept.items()}

    def keep(self, name: str, step: int) -> None:
        """Copy the current adapter."""
        tensors = get_peft_model_state_dict(self._model)
        copies = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        self._kept[name] = AdapterCopy(step, copies)

    def restore(self, name: str) -> None:
        """Load the copy ``name`` into the model."""
        set_peft_model_state_dict(self._model, dict(self._kept[name].tensors))

    def save(self, folder: Path) -> None:
        """Write every copy into a checkpoint."""
        for name, kept in self._kept.items():
            save_file(dict(kept.tensors), _file(folder, name))
        fault_point("save:kept")

    def load(self, folder: Path, steps: Mapping[str, int]) -> None:
        """Inverse of `save`; ``steps`` is that of the saved copies."""
        self._kept = {
            name: AdapterCopy(step, load_file(_file(folder, name))) for name, step in steps.items()
        }


def _file(folder: Path, name: str) -> Path:
    return folder / f"kept-{name}.safetensors"
