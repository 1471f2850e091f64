"""Runs one of llama.cpp's conversion scripts in a process of its own.

python -m remote_trainer.llama_cpp.converter SCRIPT ARGUMENT...

The scripts read a model's config through transformers, and ask for keys that its newer releases
rename. Here the old name is added beside the new one.
"""

import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

OLD_NAMES: Mapping[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "gpt2": ("n_ctx", lambda config: config["n_positions"]),
    "gpt_neox": ("rotary_pct", lambda config: config["rope_parameters"]["partial_rotary_factor"]),
}
"""model_type -> the key that the scripts ask for, and its value from what transformers returns."""


def with_old_name(config: dict[str, Any]) -> dict[str, Any]:
    """A config as the conversion scripts expect it; unchanged if it has the old name already."""
    name, value = OLD_NAMES.get(config.get("model_type", ""), (None, None))
    if name is None or value is None or name in config:
        return config
    return {**config, name: value(config)}


def main(script: str) -> None:
    """Run the script with this process's remaining arguments."""
    from transformers import PretrainedConfig

    to_dict = PretrainedConfig.to_dict
    PretrainedConfig.to_dict = lambda config: with_old_name(to_dict(config))
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
