"""One update by the trainer, on TRL as it is or as Unsloth rewrites it; prints what came of it.

Run in a process of its own, in an empty folder:
python train_rewritten.py stock|rewritten [early|vllm]
`early` imports transformers before Unsloth. `vllm` lets the stand-in of tests/fakes sample, behind
TRL's and Unsloth's real code for vLLM; else sampling is played from a list, so that both learn
from the same completions.
"""

import contextlib
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

ARGUMENTS = sys.argv[1:] if __name__ == "__main__" else []
REWRITTEN = "rewritten" in ARGUMENTS
if "early" in ARGUMENTS:
    import transformers  # noqa: F401
if REWRITTEN:
    from remote_trainer.engines.unsloth_import import import_unsloth

    import_unsloth()
    from unsloth.models.rl import _patch_trl_rl_trainers

    # Unsloth does this by itself on a GPU.
    _patch_trl_rl_trainers("grpo_trainer")
if "vllm" in ARGUMENTS:
    # Late, because Unsloth's import would patch what the stand-in does not have.
    sys.path.insert(0, str(Path(__file__).parents[1] / "fakes"))
    import trl.import_utils as import_utils
    import vllm
    from trl.generation import vllm_generation
    from unsloth.models.rl import patch_trl_vllm_generation

    for module in (import_utils, vllm_generation):
        module.is_vllm_available = lambda *_, **__: True
    vllm_generation.LLM, vllm_generation.SamplingParams = vllm.LLM, vllm.SamplingParams
    patch_trl_vllm_generation()

from dataclasses import fields  # noqa: E402

import torch  # noqa: E402
from conftest import make_model, make_tokenizer  # noqa: E402
from trl import GRPOConfig  # noqa: E402

from remote_trainer.config import RunConfig, parse_config  # noqa: E402
from remote_trainer.engines.transformers_backend import TransformersBackend  # noqa: E402
from remote_trainer.progress import OnProgress  # noqa: E402
from remote_trainer.records import (  # noqa: E402
    AdapterSettings,
    EncodedRow,
    Generation,
    LoadSettings,
    Row,
    Sampling,
    TokenIds,
)
from remote_trainer.rewards import RewardFunction  # noqa: E402
from remote_trainer.run_dir import RunDir, read_jsonl  # noqa: E402
from remote_trainer.trainer import grpo, loop  # noqa: E402
from remote_trainer.trainer.trl_arguments import stock_class  # noqa: E402

EOS = 2


class Player(TransformersBackend):
    """Answers with ids that depend on the place in the batch alone; some end, some are cut."""

    rewrites_trl = REWRITTEN

    def generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        on_progress: OnProgress | None = None,
    ) -> list[Generation]:
        return [self._play(place, sampling.max_new_tokens) for place in range(len(prompts))]

    @staticmethod
    def _play(place: int, most: int) -> Generation:
        dice = random.Random(place)
        length = dice.choice([2, 3, 4, most])
        ids = tuple(dice.randrange(10, 300) for _ in range(length))
        ended = length < most
        zeros = (0.0,) * length
        return Generation((*ids[:-1], EOS) if ended else ids, zeros, zeros, ended)


def config_of(min_std: float) -> RunConfig:
    """Small batches; the KL term is on, so that all of the loss takes part."""
    return parse_config(
        json.dumps(
            {
                "data": {"train": "-"},
                "reward": {
                    "type": "inverse_loss",
                    "truncated": "score",
                    "scored_by": "policy",
                },
                "guard": {"action": "off"},
                "training": {
                    "learning_rate": 1e-2,
                    "num_generations": 4,
                    "gradient_accumulation_steps": 2,
                    "max_prompt_length": 40,
                    "max_completion_length": 6,
                    "max_steps": 1,
                    "beta": 0.1,
                    "scale_rewards": "group",
                    "group_filter": {"min_std": min_std},
                },
            }
        ),
        "c",
    )


def backend_with_an_adapter_that_does_something(folder: Path) -> Player:
    """So that policy and reference differ from the start."""
    if not folder.exists():
        tokenizer = make_tokenizer(adds_bos=True)
        make_model("llama", tokenizer).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    backend = Player.load(folder, LoadSettings())
    backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj", "down_proj"), seed=0))
    torch.manual_seed(1)
    for name, weight in backend.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05)
    if "vllm" in ARGUMENTS:
        lend_engine(backend, folder)
    # Unsloth puts these on the models that it loads.
    backend.model.for_inference = backend.model.eval
    backend.model.for_training = lambda use_gradient_checkpointing=None: backend.model.train()
    return backend


def lend_engine(backend: Player, folder: Path) -> None:
    """vLLM on the weights that learn, as Unsloth attaches it."""

    class Engine(vllm.LLM):
        shared_weights = True

        def sleep(self, level: int = 1, mode: str = "abort") -> None:
            super().sleep(1, mode)  # Unsloth's allocator leaves the weights where they are

        def _answering(self, lora_request: Any) -> Any:
            if lora_request is None:
                return self.network.disable_adapter()
            return contextlib.nullcontext()

    engine = Engine(str(folder), enable_sleep_mode=True)
    engine.network = backend.model
    backend.model.vllm_engine = engine
    backend.model.load_lora = lambda name, load_tensors=False: ("as it is now", load_tensors)


def rows_for(backend: Player) -> list[EncodedRow]:
    """Six questions."""
    prompts: list[Any] = [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(6)]
    return [
        backend.prompt_tokenizer.encode_row(Row(prompt, {"answer": str(2 * i)}, f"f:{i}"))
        for i, prompt in enumerate(prompts)
    ]


def one_update(folder: Path, min_std: float) -> dict[str, Any]:
    """Train, and tell the line of the log, the adapter and what TRL's trainer holds."""
    backend = backend_with_an_adapter_that_does_something(folder / "model")
    config = config_of(min_std)
    made: list[Any] = []
    make = grpo.RewardTrainer.__init__

    def watched(self: Any, *more: Any) -> None:
        make(self, *more)
        made.append(self)

    rundir = RunDir(folder / f"run-{min_std}")
    reward = RewardFunction(backend, config.reward, config.training.max_completion_length)
    with patch.object(grpo.RewardTrainer, "__init__", watched):
        rows = rows_for(backend)
        loop.train(backend, reward, rows, config, rundir, vllm="vllm" in ARGUMENTS)
    (trainer,) = made
    (line,) = read_jsonl(rundir.metrics)
    stock = stock_class(GRPOConfig)
    return {
        "line": line,
        "adapter": {
            name: weight.double().flatten().tolist()
            for name, weight in backend.model.named_parameters()
            if "lora_" in name
        },
        "arguments": {f.name: str(getattr(trainer.args, f.name)) for f in fields(stock)},
        "clip": [trainer.epsilon_low, trainer.epsilon_high],
        "classes": [f"{c.__module__}.{c.__name__}" for c in type(trainer).__mro__],
    }


def main() -> None:
    """Without and with groups that the filter leaves out."""
    folder = Path.cwd()
    updates = [one_update(folder, min_std) for min_std in (0.0, 0.6)]
    configs = [f"{c.__module__}.{c.__qualname__}" for c in GRPOConfig.__mro__]
    own = stock_class(GRPOConfig)
    print(
        json.dumps(
            {
                "updates": updates,
                "config_classes": configs,
                "stock_is_first": own is GRPOConfig,
                "stock_fields": sorted(f.name for f in fields(own)),
                "fields": sorted(f.name for f in fields(GRPOConfig)),
                "unsloth": "unsloth" in sys.modules,
                "engine": vllm.EVENTS if "vllm" in ARGUMENTS else [],
            }
        )
    )


if __name__ == "__main__":
    main()
