"""Unsloth's import: it decides by the environment of that moment, and patches what comes after."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from remote_trainer.errors import EngineError

ENVIRONMENT: Mapping[str, str] = {
    # Chooses the memory allocator of the whole process; later it is too late.
    "UNSLOTH_VLLM_STANDBY": "1",
}
MEMORY_SHARE = 0.5
"""What vLLM may take of the GPU where standby does not choose a share by itself."""
PATCHED = ("trl", "transformers", "peft")
"""What Unsloth rewrites; a class imported from there before it stays as it was."""


def import_unsloth() -> Any:
    """The package, imported with standby switched on and before all that it patches.

    A value of the user's own in the environment wins. Raises EngineError where a patched package
    was imported first: Unsloth would only warn, and train with half of its patches.
    """
    if "unsloth" not in sys.modules:
        early = [name for name in PATCHED if name in sys.modules]
        if early:
            raise EngineError(
                f"{', '.join(early)} was imported before unsloth, whose patches would miss it; "
                "write `import unsloth` above all other imports, or set model.backend: transformers"
            )
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    import unsloth

    return unsloth
