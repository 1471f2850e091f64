"""A config.resolved.yaml of an older version says what was done then."""

from pathlib import Path

import pytest

from remote_trainer.config import dump_config, load_config, load_resolved, parse_config
from remote_trainer.config.older import (
    CONFIG_FORMAT,
    FORMER,
    FORMER_OF_REWARDS,
    as_begun,
    fill_in,
)
from remote_trainer.rewards import REWARDS

OLD = "data: {train: rows.jsonl}\ntraining: {seed: 3}\n"


def test_every_former_value_is_of_a_setting_that_has_another_one_today() -> None:
    config = parse_config(OLD, "c")
    for before in FORMER.values():
        for key, value in before.items():
            section, name = key.split(".")
            assert getattr(getattr(config, section), name) != value
    for kind, formats in FORMER_OF_REWARDS.items():
        for before in formats.values():
            for name, value in before.items():
                assert getattr(REWARDS[kind](), name) != value


def test_formats_go_from_the_newest_to_the_oldest() -> None:
    for formats in FORMER, *FORMER_OF_REWARDS.values():
        assert list(formats) == sorted(formats, reverse=True)
        assert set(formats) <= set(range(2, CONFIG_FORMAT + 1))


@pytest.mark.parametrize(("written", "rate"), [(3, 5.0e-6), (4, 2.0e-4), (5, 4.0e-4)])
def test_a_default_that_changed_twice_is_the_one_of_its_time(written: int, rate: float) -> None:
    assert as_begun(parse_config(OLD, "c"), written).training.learning_rate == rate
    value: dict[str, dict[str, object]] = {"training": {}}
    fill_in(value, written)
    assert value["training"].get("learning_rate", 4.0e-4) == rate


def test_what_an_old_file_lacks_is_as_it_was_then(tmp_path: Path) -> None:
    path = tmp_path / "config.resolved.yaml"
    path.write_text(OLD)
    assert load_resolved(path).training.disable_dropout is False
    assert load_config(path).training.disable_dropout is True  # a config of today, short as it is


def test_a_file_of_today_says_its_format_and_is_read_as_it_stands(tmp_path: Path) -> None:
    config = parse_config(OLD, "c")
    path = tmp_path / "config.resolved.yaml"
    path.write_text(dump_config(config))
    assert path.read_text().startswith(f"config_format: {CONFIG_FORMAT}\n")
    assert load_resolved(path) == load_config(path) == config


@pytest.mark.parametrize(
    ("written", "given", "expected"),
    [(1, "", False), (1, ", disable_dropout: true", True), (CONFIG_FORMAT, "", True)],
)
def test_a_run_goes_on_as_it_began_unless_the_config_says_otherwise(
    written: int, given: str, expected: bool
) -> None:
    text = f"data: {{train: rows.jsonl}}\ntraining: {{seed: 3{given}}}\n"
    assert as_begun(parse_config(text, "c"), written).training.disable_dropout is expected


def test_the_length_limit_of_an_older_run_follows_its_references(tmp_path: Path) -> None:
    path = tmp_path / "config.resolved.yaml"
    path.write_text(f"config_format: 2\n{OLD}evaluation: {{max_completion_length: null}}\n")
    assert load_resolved(path).answer_lengths() == (None, 0)
    assert load_config(path).answer_lengths() == (None, 0)  # it says of which format it is
    today = parse_config(OLD, "c")
    assert today.answer_lengths() == (None, today.training.max_completion_length)
    assert as_begun(today, 2).answer_lengths() == (None, 0)
    assert as_begun(today, 3).answer_lengths() == (None, 512)
    assert as_begun(today, 4).answer_lengths() == (None, 128)
    set_ = parse_config(f"{OLD}evaluation: {{max_completion_length: 9}}\n", "c")
    assert as_begun(set_, 2).answer_lengths()[0] == 9


def test_a_run_keeps_the_defaults_that_it_began_with() -> None:
    text = "data: {train: rows.jsonl}\nreward: {type: supervised}\ntraining: {max_steps: 7}\n"
    begun = as_begun(parse_config(text, "c"), 3)
    training = begun.training
    assert (training.learning_rate, training.max_steps, begun.kl_weight) == (5.0e-6, 7, 0.04)
    assert (training.completions_per_update, training.scale_rewards) == (32, "group")
    (reward,) = begun.reward
    former = {"connector": "\nAnswer: ", "scored_by": "policy", "fluency_weight": 0.0}
    assert reward == REWARDS["supervised"].model_validate({**former, "length_weight": 0.0})


def test_an_old_file_with_rewards_is_read_as_it_was_then(tmp_path: Path) -> None:
    path = tmp_path / "config.resolved.yaml"
    path.write_text(
        f"config_format: 3\n{OLD}reward:\n- {{type: supervised, c_max: 3.0}}\n- {{weight: 0.1}}\n"
    )
    supervised, inverse_loss = load_resolved(path).reward
    assert (supervised.type, inverse_loss.type) == ("supervised", "inverse_loss")
    assert inverse_loss.model_dump()["scored_by"] == "policy"
    values = supervised.model_dump()
    assert (values["connector"], values["fluency_weight"]) == ("\nAnswer: ", 0.0)


def test_nothing_is_older_than_today() -> None:
    value: dict[str, object] = {"training": {}, "reward": {"type": "supervised"}}
    fill_in(value, CONFIG_FORMAT)
    assert value == {"training": {}, "reward": {"type": "supervised"}}
    config = parse_config(OLD, "c")
    assert as_begun(config, CONFIG_FORMAT) is config
