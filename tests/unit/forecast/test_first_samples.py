"""Rows to sample, and what their completions say; made-up texts and rewards."""

import json
from typing import Any

import pytest

from remote_trainer.config import parse_config
from remote_trainer.forecast.answer_lengths import answer_lengths
from remote_trainer.forecast.figures import Completions, Rewards, RightAnswers
from remote_trainer.forecast.first_samples import (
    Drawn,
    completions_of,
    draw,
    places_for,
    rewards_of,
    right_answers,
)
from remote_trainer.records import EncodedRow, RewardResult, Row
from remote_trainer.rewards import RewardFunction


def test_rows_to_sample_and_to_train_are_apart() -> None:
    sampled, trained = places_for(100, 6, seed=0)
    assert (len(sampled), len(trained)) == (16, 6)
    assert len({*sampled, *trained}) == 22
    assert places_for(100, 6, seed=0) == (sampled, trained)
    assert places_for(100, 6, seed=1) != (sampled, trained)


def test_few_rows_are_used_again() -> None:
    sampled, trained = places_for(18, 6, seed=0)
    assert len(set(sampled)) == 16
    assert trained == trained[:2] * 3
    assert not set(sampled) & set(trained)
    sampled, trained = places_for(4, 6, seed=0)
    assert sorted(sampled) == [0, 1, 2, 3]
    assert set(trained) == set(sampled)


def rows_of(backend: Any, answers: list[str | None]) -> list[EncodedRow]:
    return [
        backend.prompt_tokenizer.encode_row(
            Row(f"What is {i}?", {} if answer is None else {"answer": answer}, f"f:{i}")
        )
        for i, answer in enumerate(answers)
    ]


def drawn_of(reward: RewardFunction, rows: list[EncodedRow], texts: list[list[str]]) -> Drawn:
    encode = reward.backend.prompt_tokenizer.encode
    samples = [
        reward.sample(row, encode(text))
        for row, own in zip(rows, texts, strict=True)
        for text in own
    ]
    return Drawn(samples, 1.0)


def test_right_answers_by_hand(llama: Any) -> None:
    """Row 0: 8 of 8; row 1: 2 of 8; row 2 has no reference; row 3: none."""
    config = parse_config(json.dumps({"reward": {"type": "supervised"}}), "c")
    reward = RewardFunction(llama, config.reward, 100)
    rows = rows_of(llama, ["Paris", "Rome", None, "Bern"])
    texts = [["It is Paris."] * 8, ["Rome", "rome!"] + ["no"] * 6, ["Paris"] * 8, ["Rome"] * 8]
    drawn = drawn_of(reward, rows, texts)
    found = right_answers(llama, reward, config, rows, [0, 1, 2, 3], drawn, [])
    assert found == RightAnswers(3, pytest.approx(10 / 24), 2 / 3, 1 / 3, 1 / 3, "data.train")


def test_held_out_rows_tell_where_training_rows_have_no_reference(llama: Any) -> None:
    config = parse_config(
        json.dumps({"reward": {"type": "supervised"}, "training": {"max_completion_length": 4}}),
        "c",
    )
    reward = RewardFunction(llama, config.reward, 4)
    rows = rows_of(llama, [None] * 3)
    drawn = drawn_of(reward, rows, [["Paris"] * 8] * 3)
    held_out = rows_of(llama, [None, "Paris", "Rome"])
    found = right_answers(llama, reward, config, rows, [0, 1, 2], drawn, held_out)
    assert found is not None
    assert (found.rows, found.taken_from) == (2, "data.eval")
    assert right_answers(llama, reward, config, rows, [0, 1, 2], drawn, rows) is None


def test_completions_by_hand(llama: Any) -> None:
    reward = RewardFunction(llama, parse_config("{}", "c").reward, 4)
    [row] = rows_of(llama, ["Paris"])
    eos = llama.prompt_tokenizer.eos_ids[0]
    samples = [reward.sample(row, ids) for ids in [(9, 9, 9, 9), (9, eos), (9, 9, 9, eos)]]
    assert completions_of(Drawn(samples, 1.0)) == Completions(10 / 3, 1 / 3)


def test_samples_repeat_and_leave_other_random_numbers_alone(llama: Any) -> None:
    import torch

    config = parse_config(json.dumps({"training": {"max_completion_length": 4}}), "c")
    reward = RewardFunction(llama, config.reward, 4)
    rows = rows_of(llama, ["Paris", "Rome"])
    state = torch.random.get_rng_state()
    first, second = (draw(llama, reward, rows, config).samples for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert [each.completion_ids for each in first] == [each.completion_ids for each in second]
    assert len(first) == 16
    assert len({each.completion_ids for each in first[:8]}) > 1
    assert {each.prompt for each in first[:8]} == {"What is 0?"}


def test_spread_of_rewards_by_hand() -> None:
    """Groups of 8: half 0 and half 1 (variance 16 x 0.25 / 7 / 2), all equal, not judged."""
    halves = [RewardResult(float(i % 2), {}) for i in range(8)]
    equal = [RewardResult(0.25, {})] * 8
    unknown = [RewardResult(None, {})] * 8
    deviation = (8 * 0.25 / 7) ** 0.5
    found = rewards_of([*halves, *equal], 1e-3)
    assert found == Rewards(pytest.approx(0.375), pytest.approx(deviation / 2), 0.5)
    assert rewards_of([*halves, *unknown], 1e-3).groups_without_spread == 0.5
    assert rewards_of(unknown, 1e-3) == Rewards(None, None, 1.0)
    assert rewards_of(halves, 1.0).groups_without_spread == 1.0


def test_answer_lengths_by_hand(llama: Any) -> None:
    """Of several accepted answers the shortest counts; a row without one does not."""
    config = parse_config(json.dumps({"training": {"max_completion_length": 3}}), "c")
    tokenizer = llama.prompt_tokenizer
    answers: list[Any] = ["a", "ab", ["abcdefgh", "a"], "zzzzzz", None]
    rows = [Row("p", {} if a is None else {"answer": a}, f"f:{i}") for i, a in enumerate(answers)]
    lengths = [len(tokenizer.encode(text)) for text in ("a", "ab", "a", "zzzzzz")]
    assert lengths[3] > 3 >= max(lengths[:3])
    found = answer_lengths(config, rows, tokenizer)
    assert found is not None
    assert found.over_limit == 0.25
    assert found.median == sorted(lengths)[1] / 2 + sorted(lengths)[2] / 2
    assert answer_lengths(config, rows[4:], tokenizer) is None
