"""What each reward costs per completion, in forward passes over prompt and completion.

    python benchmarks/reward_cost.py [--rounds 5]

The built-in model, 16 completions of 24 ids to 4 prompts of the shipped data. Rewards and the
plain forward pass take turns in one process; medians are compared. Text rewards cost microseconds.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from remote_trainer.engine import resolve_model
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.models.builtin_model import BUILTIN_NAME
from remote_trainer.records import LoadSettings, Row, Sample, ScoreRequest
from remote_trainer.rewards import REWARDS, RewardConfig, RewardFunction

ROOT = Path(__file__).parents[1]
PROMPTS, COMPLETIONS_EACH, COMPLETION_IDS = 4, 4, 24
NEEDED: dict[str, dict[str, Any]] = {
    "regex": {"pattern": r"\d"},
    "function": {"function": "benchmarks.reward_cost:constant"},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "supervised, coverage_information": {"type": "supervised", "formula": "coverage_information"},
    "answer_likelihood, baseline": {"type": "answer_likelihood", "baseline": True},
}


def constant(completions: list[Any], **_: Any) -> list[float]:
    """The cheapest reward function a user can write."""
    return [0.0] * len(completions)


def samples_of(function: RewardFunction) -> list[Sample]:
    """Sampled-looking completions: ids of running text, an end-of-sequence id behind."""
    prompt_tokenizer = function.backend.prompt_tokenizer
    lines = (ROOT / "data/train_supervised.jsonl").read_text().splitlines()[:PROMPTS]
    text = prompt_tokenizer.encode((ROOT / "README.md").read_text())
    draw = random.Random(0)
    samples = []
    for row in map(json.loads, lines):
        prompt: Any = [{"role": "user", "content": row["prompt"]}]
        encoded = prompt_tokenizer.encode_row(Row(prompt, row, ""))
        for _ in range(COMPLETIONS_EACH):
            start = draw.randrange(len(text) - COMPLETION_IDS)
            ids = (*text[start : start + COMPLETION_IDS - 1], prompt_tokenizer.eos_ids[0])
            samples.append(function.sample(encoded, ids))
    return samples


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Print one line per reward."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    backend = TransformersBackend.load(resolve_model(BUILTIN_NAME), LoadSettings())
    configs = {name: RewardConfig(type=name, **NEEDED.get(name, {})) for name in REWARDS}
    configs |= {name: RewardConfig(**options) for name, options in VARIANTS.items()}
    functions = {name: RewardFunction(backend, [config]) for name, config in configs.items()}
    samples = samples_of(functions["inverse_loss"])
    forward = [ScoreRequest.of(s.prompt_ids, s.completion_ids) for s in samples]
    plain: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):  # the first round warms up
        for name, function in functions.items():
            one = seconds(partial(backend.score, forward))
            mine = seconds(partial(function.judge, samples))
            if turn:
                plain.append(one)
                times[name].append(mine)
    unit = median(plain)
    print(f"one forward pass: {unit / len(samples) * 1000:.1f} ms a completion")
    for name, measured in times.items():
        print(f"{name:34}{median(measured) / unit:8.2f}")


if __name__ == "__main__":
    main()
