"""Packages that a command needs and the base installation lacks."""

from collections.abc import Sequence
from importlib.util import find_spec

from remote_trainer.errors import UserInputError
from remote_trainer.packages import install_extra

TO_LOAD = ("torch", "transformers", "peft", "safetensors")
"""Required for loading a model."""
TO_TRAIN = (*TO_LOAD, "trl", "accelerate", "datasets")


def require_packages(command: str, modules: Sequence[str], extra: str = "train") -> None:
    """Raises UserInputError that names the extra with the missing packages."""
    missing = [name for name in modules if not _is_there(name)]
    if missing:
        raise UserInputError.at(
            command,
            f"needs {', '.join(missing)}, which are in the extra {extra!r}: {install_extra(extra)}",
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a broken installation
        return False
