"""Time and tokens of a run, by hand."""

import json
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.forecast.cost import (
    HeldOut,
    Pace,
    cost_of,
    evaluation_seconds,
    guard_probes,
)

PACE = Pace(sampled_token=0.01, judged=0.1, scored=0.2)
HELD_OUT = HeldOut(rows=10, samples=4, tokens=20.0, guard_rows=5, guard_probes=3)
# A row: 5 answers of 20 tokens 1.0 s, 4 judged 0.4 s, 1 scored 0.2 s. A row of the guard: 0.2 s
# and 4 scored 0.8 s.
EVALUATION = 2 * 10 * 1.6 + 3 * 5 * 1.0


def config_of(**training: Any) -> RunConfig:
    evaluation = training.pop("evaluation", {})
    return parse_config(json.dumps({"training": training, "evaluation": evaluation}), "c")


def test_evaluations_by_hand() -> None:
    assert evaluation_seconds(HELD_OUT, PACE) == pytest.approx(EVALUATION)


def line(seconds: float, tokens: float | None) -> dict[str, Any]:
    return {"seconds_step": seconds, "completion_tokens_mean": tokens, "peak_memory_mb": seconds}


def test_the_first_update_warms_up() -> None:
    config = config_of(num_generations=4, gradient_accumulation_steps=2)
    lines = [line(9.0, 12.0), line(2.0, 8.0), line(4.0, 10.0)]
    cost = cost_of(lines, config, 30.0, 100, HELD_OUT, PACE)
    assert cost.seconds_per_update == 3.0
    # 2 prompts of 30 tokens, 8 completions of 10.
    assert (cost.tokens_per_update, cost.tokens) == (140.0, 14_000.0)
    assert cost.seconds_updates == 300.0
    assert cost.seconds == pytest.approx(300.0 + EVALUATION)
    assert cost.seconds_evaluation == pytest.approx(EVALUATION)
    assert cost.peak_memory_mb == 4.0


def test_updates_that_share_completions_count_together() -> None:
    config = config_of(num_generations=4, gradient_accumulation_steps=1, num_iterations=2)
    lines = [line(9.0, 10.0), line(5.0, None), line(4.0, 10.0), line(2.0, None)]
    cost = cost_of(lines, config, 30.0, 10, HELD_OUT, PACE)
    assert cost.seconds_per_update == 3.0
    assert cost.tokens_per_update == (30.0 + 4 * 10.0) / 2


def test_without_held_out_rows_the_guard_still_probes() -> None:
    nothing = HeldOut(rows=0, samples=4, tokens=20.0, guard_rows=5, guard_probes=3)
    cost = cost_of([line(1.0, 1.0)] * 3, config_of(), 1.0, 10, nothing, PACE)
    assert cost.seconds_evaluation is None
    assert cost.seconds == pytest.approx(10.0 + 15.0)


def test_probes_of_the_guard_by_hand() -> None:
    # Before training; 5, 10, 15, 20; 40, 60; and the last, 70.
    assert guard_probes(config_of(save_steps=20), 70) == 8
    assert guard_probes(config_of(save_steps=20), 60) == 7
    # 3, 6, ... 18 early on; the interval is the checkpoints'.
    assert guard_probes(config_of(save_steps=3), 10) == 1 + 3 + 1
    assert guard_probes(config_of(evaluation={"every_steps": 25}), 100) == 5
    off = parse_config(json.dumps({"guard": {"action": "off"}}), "c")
    assert guard_probes(off, 100) == 0
