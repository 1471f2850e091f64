"""Train as the pipeline does, on a machine that claims a GPU; prints what the fakes saw as JSON.

Run in a process of its own with this folder on the path:
python train_with_fakes.py config.json
"""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from remote_trainer.config import RunConfig, load_config
from remote_trainer.engines.selection import EngineChoice, Facts
from remote_trainer.pipeline import backend as choosing
from remote_trainer.pipeline import train as training

FACTS = Facts(
    cuda=True, capability=(8, 0), bitsandbytes=True, unsloth=True, vllm=True, bnb_plugin=True
)


def note_arguments(seen: dict[str, Any]) -> None:
    """See what TRL's trainer holds once it is made; imported late, as the engine comes first."""
    from remote_trainer.trainer.grpo import RewardTrainer

    make = RewardTrainer.__init__

    def watched_make(self: Any, *more: Any) -> None:
        make(self, *more)
        seen["arguments"] = {name: str(value) for name, value in vars(self.args).items()}

    patch.object(RewardTrainer, "__init__", watched_make).start()


def base_bits(backend: Any) -> str:
    """A hash of every weight that is not the adapter's; names change with the adapter."""
    import torch

    digest = hashlib.sha256()
    for name, value in backend.model.state_dict().items():
        if "lora_" not in name:
            digest.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def main(config_file: str) -> None:
    """Run it, and look at the base before and after."""
    seen: dict[str, Any] = {}
    load, train = choosing.load_trainable, training._train

    def watched_load(model_folder: Path, config: RunConfig, choice: EngineChoice) -> Any:
        seen["choice"] = asdict(choice)
        backend = load(model_folder, config, choice)
        note_arguments(seen)
        return backend

    def watched_train(backend: Any, *more: Any) -> None:
        before = base_bits(backend)
        train(backend, *more)
        seen["base_unchanged"] = base_bits(backend) == before
        seen["adapter_moved"] = any(
            bool(value.abs().sum() > 0)
            for name, value in backend.model.named_parameters()
            if "lora_B" in name
        )

    with (
        patch.object(choosing, "find_facts", lambda: FACTS),
        patch.object(training, "load_trainable", watched_load),
        patch.object(training, "_train", watched_train),
    ):
        training.run(load_config(config_file), Path(config_file).read_text())
    import vllm

    made = [{name: str(value) for name, value in settings.items()} for settings in vllm.MADE]
    print(json.dumps({**seen, "engines": made, "vllm": vllm.EVENTS, **unsloth_saw()}))


def unsloth_saw() -> dict[str, Any]:
    """What the fake Unsloth noted, if it was imported."""
    unsloth = sys.modules.get("unsloth")
    if unsloth is None:
        return {"unsloth": None}
    return {
        "unsloth": {
            "early": unsloth.EARLY,
            "standby": unsloth.STANDBY,
            "calls": {k: {n: str(x) for n, x in v.items()} for k, v in unsloth.CALLS.items()},
            "events": unsloth.EVENTS,
        }
    }


if __name__ == "__main__":
    main(sys.argv[1])
