"""Some GRPO updates of one side, stock TRL or remote_trainer, in a process of its own.

    python benchmarks/one_side.py '{"side": "stock", "prompt_tokens": 256, ...}'

Prints one line of JSON; `step_time.py` calls this with both sides in turn.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.engine import resolve_model
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.models.builtin_model import BUILTIN_NAME
from remote_trainer.models.layer_names import SEVEN
from remote_trainer.records import AdapterSettings, LoadSettings, Row
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer.grpo import RewardTrainer
from remote_trainer.trainer.run_log import RunLog
from remote_trainer.trainer.trl_settings import trl_settings

ROOT = Path(__file__).parents[1]
aten = torch.ops.aten
PHASES = ("generate", "reward", "reference", "update")


@dataclass(frozen=True)
class Task:
    """What both sides do; each completion has exactly ``completion_tokens`` ids."""

    side: str = "ours"
    prompt_tokens: int = 256
    completion_tokens: int = 64
    generations: int = 8
    prompts: int = 1
    """Prompts of an update."""
    dtype: str = "float32"
    sampling_dtype: str = "auto"
    reward: str = "inverse_loss"
    updates: int = 1
    """Measured updates, behind one that warms up."""
    stock_micro_batch: int | None = None
    """Completions that stock learns from at once; None: all of a prompt."""
    count_flops: bool = False


def config_of(task: Task) -> RunConfig:
    """Our config of a task; stock TRL gets the settings that we hand to TRL ourselves."""
    return parse_config(
        json.dumps(
            {
                "model": {"dtype": task.dtype},
                "data": {"train": "-"},
                "reward": {"type": task.reward, "gate": []}
                | ({"truncated": "score"} if task.reward == "inverse_loss" else {}),
                "training": {
                    "learning_rate": 1e-5,
                    "num_generations": task.generations,
                    "gradient_accumulation_steps": task.prompts,
                    "max_prompt_length": task.prompt_tokens,
                    "max_completion_length": task.completion_tokens,
                    "max_steps": 1 + task.updates + task.count_flops,
                    "save_steps": 1000,
                    "group_filter": {"min_std": 0},
                },
                "generation": {
                    "min_new_tokens": task.completion_tokens,
                    "dtype": task.sampling_dtype,
                },
            }
        ),
        "benchmark",
    )


def prompts_of(task: Task, encode: Callable[[str], list[int]], decode: Any) -> list[str]:
    """Pieces of this project's documentation of exactly ``prompt_tokens`` tokens each."""
    ids = encode((ROOT / "docs/rewards.md").read_text(encoding="utf-8"))
    wanted, start = task.prompts * (2 + task.updates), 0
    found: list[str] = []
    while len(found) < wanted:
        piece = decode(ids[start : start + task.prompt_tokens])
        if len(encode(piece)) == task.prompt_tokens:
            found.append(piece)
            start += task.prompt_tokens // 8
        start = (start + 1) % (len(ids) - task.prompt_tokens)
    return found


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds by phase of every update."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.phases = dict.fromkeys(PHASES, 0.0)
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        total = time.perf_counter() - self.started
        self.phases["update"] = total - sum(self.phases.values())
        self.steps.append({**self.phases, "step": total})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add what happens inside to a phase."""
        started = time.perf_counter()
        yield
        self.phases[name] += time.perf_counter() - started


def timed(trainer: type[Any], clock: Clock) -> type[Any]:
    """The trainer with its phases measured, at the same places for both sides."""

    class Timed(trainer):  # type: ignore[misc]
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            with clock.phase("generate"):
                return super()._generate(*args, **kwargs)

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            with clock.phase("reward"):
                return super()._calculate_rewards(*args, **kwargs)

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled():
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)
            with clock.phase("reference"):
                return super()._get_per_token_logps_and_entropies(*args, **kwargs)

        def _policy_logprobs(self, rows: Any) -> Any:
            """Ours alone: the pass of the update, made while rewards are computed."""
            started = time.perf_counter()
            found = super()._policy_logprobs(rows)
            clock.phases["reward"] -= time.perf_counter() - started
            return found

    return Timed


class Memory:
    """Resident memory in MB: now, and the most from now on."""

    def __init__(self) -> None:
        self.loaded = self._read("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far

    def peak(self) -> float:
        """The most since this was made."""
        return self._read("VmHWM")

    def _read(self, name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def stock(task: Task, config: RunConfig, folder: Path, clock: Clock) -> tuple[Any, Memory]:
    """TRL as it is, on its best settings for a CPU, with the one-at-a-time reward."""
    home = resolve_model(BUILTIN_NAME)
    tokenizer = AutoTokenizer.from_pretrained(home)
    model = AutoModelForCausalLM.from_pretrained(home, dtype=getattr(torch, task.dtype))
    memory = Memory()
    prompts = prompts_of(task, lambda text: tokenizer(text)["input_ids"], tokenizer.decode)
    lora = config.lora
    settings = trl_settings(config, cuda=False)
    if task.stock_micro_batch:
        # The same update in parts: rows of a batch do not share anything in stock.
        steps, rest = divmod(task.prompts * task.generations, task.stock_micro_batch)
        assert rest == 0, "an update is a whole number of micro-batches"
        settings["per_device_train_batch_size"] = task.stock_micro_batch
        settings["gradient_accumulation_steps"] = steps
    trainer = timed(GRPOTrainer, clock)(
        model=model,
        reward_funcs=[mean_logprob_one_by_one(model, tokenizer)],
        args=GRPOConfig(output_dir=str(folder), **settings),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=list(SEVEN)),
        callbacks=[clock],
    )
    return trainer, memory


def mean_logprob_one_by_one(model: Any, tokenizer: Any) -> Callable[..., list[float]]:
    """Mean log-prob of each completion, from text, one forward pass each, full logits."""

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        values = []
        for prompt, completion in zip(prompts, completions, strict=True):
            ids = tokenizer(prompt + completion, return_tensors="pt")["input_ids"]
            start = len(tokenizer(prompt)["input_ids"])
            with torch.no_grad():
                logprobs = model(ids).logits[0, :-1].log_softmax(dim=-1)
            taken = logprobs.gather(-1, ids[0, 1:, None])[start - 1 :, 0]
            values.append(taken.mean().item() if len(taken) else 0.0)
        return values

    return reward


def ours(task: Task, config: RunConfig, folder: Path, clock: Clock) -> tuple[Any, Memory]:
    """remote_trainer, as `train` puts it together."""
    backend = TransformersBackend.load(resolve_model(BUILTIN_NAME), LoadSettings(dtype=task.dtype))
    memory = Memory()
    lora = config.lora
    backend.add_adapter(
        AdapterSettings(lora.r, lora.alpha, lora.dropout, lora.target_modules, seed=0)
    )
    prompts = prompts_of(
        task,
        lambda text: list(backend.prompt_tokenizer.encode(text)),
        backend.prompt_tokenizer.decode,
    )
    rows = [
        backend.prompt_tokenizer.encode_row(Row(prompt, {"answer": "42"}, f"row {i}"))
        for i, prompt in enumerate(prompts)
    ]
    home = RunDir(folder)
    trainer = timed(RewardTrainer, clock)(
        backend,
        RewardFunction(backend, config.reward, None),
        rows,
        config,
        home,
        RunLog(home, lambda line, updates: None),
        [clock],
    )
    return trainer, memory


class Arithmetic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations of matrix products and attention, where they are carried out.

    torch's own `FlopCounterMode` follows modules, which fails where gradients are switched on and
    off within a call, and knows neither oneDNN's products nor the CPU's attention.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._overloadpacket
        if name in flop_registry:
            self.operations += flop_registry[name](*args, **(kwargs or {}), out_val=result)
        elif name is torch.ops.mkldnn._linear_pointwise:
            self.operations += 2 * args[0].numel() * args[1].shape[0]
        elif name is aten._scaled_dot_product_flash_attention_for_cpu:
            self.operations += 2 * pairs(args[0], args[1])
        elif name is aten._scaled_dot_product_flash_attention_for_cpu_backward:
            self.operations += 5 * pairs(args[1], args[2])
        return result


def pairs(query: torch.Tensor, key: torch.Tensor) -> int:
    """Operations of one product of all queries with all keys."""
    return 2 * query.numel() * key.shape[-2]


class CountFlops(TrainerCallback):  # type: ignore[misc]
    """Counts the arithmetic of the last update, which is then not timed."""

    def __init__(self, last: int) -> None:
        self.last, self.counter = last, Arithmetic()

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == self.last - 1:
            self.counter.__enter__()  # type: ignore[no-untyped-call]

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == self.last:
            self.counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]


def main() -> None:
    """Run the task given as JSON and print what it took."""
    task = Task(**json.loads(sys.argv[1]))
    config, clock = config_of(task), Clock()
    with TemporaryDirectory() as folder:
        build = {"stock": stock, "ours": ours}[task.side]
        trainer, memory = build(task, config, Path(folder), clock)
        flops = CountFlops(config.training.max_steps or 0)
        if task.count_flops:
            trainer.add_callback(flops)
        trainer.train()
    measured = clock.steps[1 : 1 + task.updates]
    result = {
        **{name: fmean(step[name] for step in measured) for name in (*PHASES, "step")},
        "loaded_mb": memory.loaded,
        "peak_mb": memory.peak(),
        "tflop": flops.counter.operations / 1e12 if task.count_flops else None,
        "task": asdict(task),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
