"""Risks of made-up measurements: which, in what order, and with which advice."""

import json
from dataclasses import replace
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.forecast.answer_lengths import AnswerLengths
from remote_trainer.forecast.figures import (
    Completions,
    Cost,
    Divergence,
    Probe,
    Rewards,
    RightAnswers,
)
from remote_trainer.forecast.risks import Known, risks_of

FINE = Probe(
    rows=16,
    samples=8,
    right_answers=RightAnswers(16, 0.2, 0.7, 0.3, 0.1, "data.train"),
    rewards=Rewards(0.5, 0.1, 0.1),
    completions=Completions(10.0, 0.1),
    cost=Cost(1.0, 100.0, 100.0, 10.0, 110.0, 1e4, 900.0),
    divergence=Divergence((1e-4, 3e-4, 6e-4), 0.5, 0.005, 100, 0.3),
    missing=(),
)


def config_of(reward: Any = "supervised", **training: Any) -> RunConfig:
    reward = reward if isinstance(reward, dict) else {"type": reward}
    return parse_config(json.dumps({"reward": reward, "training": training}), "c")


def names(known: Known) -> list[str]:
    return [risk.name for risk in risks_of(known)]


def text_of(probe: Probe, **training: Any) -> str:
    [risk] = risks_of(Known(config_of(**training), 500, AnswerLengths(3, 0.0), probe))
    return risk.text


def moved(after_10: float, after_all: float) -> Probe:
    found = replace(FINE.divergence, after_10=after_10, after_all=after_all)
    return replace(FINE, divergence=found)


def test_a_good_run_has_none() -> None:
    assert names(Known(config_of(), 500, AnswerLengths(3, 0.0), FINE)) == []


def test_a_run_that_will_not_move_gets_a_learning_rate() -> None:
    """The KL is to be 0.2: sqrt(0.2 / 0.0005) = 20 times the rate, 1e-4, and 400 times the KL."""
    text = text_of(moved(1e-5, 5e-4), learning_rate=5e-6)
    assert "100 updates change it by a KL of about 0.0005 nats" in text
    assert text.endswith("training.learning_rate: 1.0e-04 would change it by about 0.2")


def test_a_high_rate_is_not_raised() -> None:
    assert "write more updates" in text_of(moved(0.001, 0.002), learning_rate=2e-4)
    # At most 2e-4, which is 4 times the KL.
    text = text_of(moved(0.001, 0.002), learning_rate=1e-4)
    assert text.endswith(
        "training.learning_rate: 2.0e-04 would change it by about 0.008; write more updates, too"
    )


def test_a_run_without_signal_is_not_told_to_go_faster() -> None:
    assert "no probed update had a group with signal" in text_of(moved(0.0, 0.0))


def test_a_fast_run_gets_a_lower_rate() -> None:
    """0.05 is to be reached: sqrt(0.05 / 1.25) = 0.2 times the rate."""
    text = text_of(moved(1.25, 50.0), learning_rate=1e-3)
    assert text.endswith("write training.learning_rate: 2.0e-04")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"completions": Completions(24.0, 0.6)}, "60% of the completions are cut at "),
        (
            {"right_answers": RightAnswers(16, 0.031, 0.25, 0.75, 0.0, "data.train")},
            "3.1% of the samples are right, and 75% of the rows have no right one",
        ),
        ({"rewards": Rewards(0.0, 1e-6, 0.75)}, "75% of the groups have rewards without spread"),
    ],
)
def test_what_was_measured_is_named(changed: dict[str, Any], expected: str) -> None:
    assert expected in text_of(replace(FINE, **changed))


def test_limits_are_not_risks() -> None:
    on_the_limit = replace(
        FINE,
        right_answers=RightAnswers(16, 0.05, 0.1, 0.9, 0.0, "data.train"),
        rewards=Rewards(None, None, 0.5),
        completions=Completions(24.0, 0.5),
        divergence=replace(FINE.divergence, after_10=0.1, after_all=0.01),
    )
    assert names(Known(config_of(), 50, AnswerLengths(32, 0.1), on_the_limit)) == []


def test_what_needs_no_model_is_said_without_one() -> None:
    long = AnswerLengths(median=40, over_limit=0.3)
    supervised = config_of(max_completion_length=24)
    assert names(Known(supervised, 49, long)) == [
        "limit_under_answers", "mean_prob_on_long_answers", "few_rows",
    ]  # fmt: skip
    logarithm = config_of({"type": "answer_likelihood", "formula": "mean_logprob"})
    assert names(Known(logarithm, 500, AnswerLengths(40, 0.0))) == []
    alone = config_of("inverse_loss", beta=0.0)
    assert names(Known(alone, 500, long)) == ["no_kl_term"]
    assert names(Known(config_of("inverse_loss"), 500, long)) == []
    assert names(Known(config_of("length_limit", beta=0.0), 500)) == []


def test_the_worst_comes_first() -> None:
    bad = replace(
        FINE,
        right_answers=RightAnswers(16, 0.0, 0.0, 1.0, 0.0, "data.train"),
        rewards=Rewards(0.0, 0.0, 1.0),
        completions=Completions(24.0, 1.0),
        divergence=Divergence((), 0.5, 0.0, 100, 0.0),
    )
    assert names(Known(config_of(), 10, AnswerLengths(40, 1.0), bad)) == [
        "will_not_move", "cut", "out_of_reach", "no_spread", "limit_under_answers",
        "mean_prob_on_long_answers", "few_rows",
    ]  # fmt: skip


def test_nothing_is_said_of_what_is_not_known() -> None:
    unknown = replace(FINE, right_answers=None)
    assert names(Known(config_of(), 500, None, unknown)) == []
