"""A config.resolved.yaml of an older version says what was done then."""

from pathlib import Path

import pytest

from remote_trainer.config import dump_config, load_config, load_resolved, parse_config
from remote_trainer.config.older import ADDED, CONFIG_FORMAT, as_begun, older_values

OLD = "data: {train: rows.jsonl}\ntraining: {seed: 3}\n"


def test_every_added_setting_exists_and_its_default_is_another() -> None:
    config = parse_config(OLD, "c")
    for key, (first, before) in ADDED.items():
        section, name = key.split(".")
        assert getattr(getattr(config, section), name) != before
        assert 1 < first <= CONFIG_FORMAT


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
    assert as_begun(today, 3) == today
    set_ = parse_config(f"{OLD}evaluation: {{max_completion_length: 9}}\n", "c")
    assert as_begun(set_, 2).answer_lengths()[0] == 9


def test_nothing_is_older_than_today() -> None:
    assert older_values(CONFIG_FORMAT) == {}
