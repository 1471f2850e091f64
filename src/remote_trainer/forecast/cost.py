"""Time and tokens of a whole run, from what the probe measured on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.forecast.figures import Cost

SCORED_PER_GUARD_ROW = 4  # evaluation/probe.py: three for fluency and dependence, one likelihood


@dataclass(frozen=True)
class Pace:
    """Seconds on this machine, in batches of the probe."""

    sampled_token: float
    judged: float
    """Rewards of one completion."""
    scored: float
    """Log-probs of one completion."""


@dataclass(frozen=True)
class HeldOut:
    """What the evaluations of a run and its guard ask."""

    rows: int
    samples: int
    """Per row, beside the greedy one."""
    tokens: float
    """Mean length of a completion at the length limit of the evaluation."""
    guard_rows: int
    """Rows of one probe of the guard."""
    guard_probes: int


def guard_probes(config: RunConfig, updates: int) -> int:
    """Probes of a run without warnings, the one before training included."""
    if config.guard.action == "off" and config.training.keep != "best":
        return 0
    # It imports transformers, which the light installation lacks and Unsloth must patch first.
    from remote_trainer.trainer.guard_callback import EARLY_UPDATES, WATCHED_INTERVAL

    asked, every = config.evaluation.every_steps, config.training.save_steps
    usual, early = asked or every, asked or min(WATCHED_INTERVAL, every)
    return 1 + sum(
        step % usual == 0 or step == updates or (step <= EARLY_UPDATES and step % early == 0)
        for step in range(1, updates + 1)
    )


def evaluation_seconds(held_out: HeldOut, pace: Pace) -> float:
    """Two evaluations, before and after, and all probes of the guard."""
    answer = held_out.tokens * pace.sampled_token
    row = (1 + held_out.samples) * answer + held_out.samples * pace.judged + pace.scored
    guard_row = answer + SCORED_PER_GUARD_ROW * pace.scored
    probes = held_out.guard_probes * held_out.guard_rows
    return 2 * held_out.rows * row + probes * guard_row


def cost_of(
    lines: Sequence[Mapping[str, Any]],
    config: RunConfig,
    prompt_tokens: float,
    updates: int,
    held_out: HeldOut,
    pace: Pace,
) -> Cost:
    """``lines`` are those of the probed updates. The first batch of completions is left out: it
    warms up. ``prompt_tokens`` is the mean length of a prompt, which counts once per group."""
    training = config.training
    warm = lines[training.num_iterations :]
    per_update = fmean(line["seconds_step"] for line in warm)
    sampled = [line["completion_tokens_mean"] for line in lines]
    completion = fmean(tokens for tokens in sampled if tokens is not None)
    tokens = (
        training.completions_per_update * completion + training.prompts_per_update * prompt_tokens
    ) / training.num_iterations
    evaluation = evaluation_seconds(held_out, pace)
    return Cost(
        seconds_per_update=per_update,
        tokens_per_update=tokens,
        seconds_updates=updates * per_update,
        seconds_evaluation=evaluation if held_out.rows else None,
        seconds=updates * per_update + evaluation,
        tokens=updates * tokens,
        peak_memory_mb=lines[-1]["peak_memory_mb"],
    )
