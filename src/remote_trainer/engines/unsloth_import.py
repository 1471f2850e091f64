"""Unsloth's import: it reads environment variables and patches later imports."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from remote_trainer.errors import EngineError

ENVIRONMENT: Mapping[str, str] = {
    # Chooses the memory allocator of the process, so it must be set before the import.
    "UNSLOTH_VLLM_STANDBY": "1",
}
MEMORY_SHARE = 0.5
"""What vLLM may take of the GPU where standby does not choose a share by itself."""
PATCHED = ("trl", "transformers", "peft")
"""Packages that Unsloth patches; classes imported from them earlier stay unpatched."""


def import_unsloth() -> Any:
    """Import Unsloth with standby enabled, before the packages that it patches.

    Variables that the user has set take precedence. Raises EngineError if a patched package was
    imported first: Unsloth would only warn, and train with half of its patches.
    """
    if "unsloth" not in sys.modules:
        early = [name for name in PATCHED if name in sys.modules]
        if early:
            raise EngineError(
                f"{', '.join(early)} was imported before unsloth, which cannot patch it any more; "
                "write `import unsloth` above all other imports, or set model.backend: "
                "transformers"
            )
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    import unsloth

    return unsloth
