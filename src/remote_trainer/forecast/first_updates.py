"""A few real updates, whose adapter, files and random numbers no run ever sees."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.engines.protocol import Backend
from remote_trainer.errors import RunInterrupted
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.records import EncodedRow, Sample, ScoreRequest
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir

UPDATES = 3
LARGEST_LOG = 50.0  # exp of more would overflow; such a change is far beyond any limit
Logprobs = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Updates:
    """What the probed updates left."""

    lines: Sequence[dict[str, Any]]
    """As in metrics.jsonl."""
    divergences: tuple[float, ...]
    """KL from the start in nats per token after each update that changed the weights."""


def probed_updates(config: RunConfig) -> int:
    """Whole batches of completions: at least two, and at least `UPDATES` updates."""
    iterations = config.training.num_iterations
    return iterations * max(2, math.ceil(UPDATES / iterations))


def rows_needed(config: RunConfig) -> int:
    """Rows of the probed updates."""
    training = config.training
    return probed_updates(config) // training.num_iterations * training.prompts_per_update


def probe_config(config: RunConfig) -> RunConfig:
    """The config with the probe's length: full learning rate, no guard, no checkpoints."""
    training = config.training
    trl = {name: value for name, value in training.trl.items() if name != "warmup_ratio"}
    changed = {
        "max_steps": probed_updates(config),
        "num_train_epochs": None,
        "warmup_steps": 0,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "keep": "last",
        "trl": {**trl, "save_strategy": "no"},
    }
    return config.model_copy(
        update={
            "training": training.model_copy(update=changed),
            "guard": config.guard.model_copy(update={"action": "off"}),
        }
    )


def probe_updates(
    backend: Backend,
    reward: RewardFunction,
    rows: Sequence[EncodedRow],
    drawn: Sequence[Sample],
    config: RunConfig,
    vllm: bool,
    watch: ProgressCallbacks,
) -> Updates:
    """Train the adapter of ``backend`` on ``rows`` in a temporary folder; after each update,
    compare the log-probs of the ``drawn`` completions with those before."""
    # It imports TRL, which Unsloth must patch first: by now the engine is loaded.
    from remote_trainer.trainer.loop import train

    asked = [ScoreRequest.of(sample.prompt_ids, sample.completion_ids) for sample in drawn]
    before = backend.score(asked)
    lines: list[dict[str, Any]] = []
    divergences: list[float] = []

    def see(line: dict[str, Any], updates: int) -> None:
        lines.append(line)
        if not line["skipped_share"]:
            divergences.append(divergence(before, backend.score(asked)))
        watch.line(line, updates)

    short = probe_config(config)
    with TemporaryDirectory(prefix="remote-trainer-probe-") as folder:
        run = RunDir(Path(folder))
        try:
            train(backend, reward, rows, short, run, watch=ProgressCallbacks(line=see), vllm=vllm)
        except RunInterrupted as error:
            raise RunInterrupted("the probe was stopped by a signal", error.exit_code) from None
    return Updates(lines, tuple(divergences))


def divergence(before: Logprobs, after: Logprobs) -> float:
    """KL(before, after) in nats per token, from the log-probs of ids that were drawn before.

    With r = p_after / p_before the mean of r - 1 - log r: no value is negative, so it varies less
    than the mean of -log r (Schulman's k3, http://joschu.net/blog/kl-approx.html).
    """
    changes = [
        min(b - a, LARGEST_LOG)
        for old, new in zip(before, after, strict=True)
        for a, b in zip(old, new, strict=True)
    ]
    return sum(math.expm1(change) - change for change in changes) / len(changes)
