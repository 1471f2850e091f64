"""The numbers of training on a CPU are what they were, to the last bit."""

import json
from pathlib import Path
from typing import Any

import pytest
from golden_run import CONFIGS, golden_run, machine_key, recording

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both configs share a folder, so that the built-in model is made once."""
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_are_those_recorded(name: str, cache: Path) -> None:
    known = recording(machine_key())
    found = golden_run(name, cache / name)
    assert len(found["metrics"]) == 20
    if known.exists():
        assert_equal(json.loads(known.read_text())[name], found)
        return
    assert_equal(found, golden_run(name, cache / f"{name}-again"))
    pytest.skip(f"two runs are equal, but nothing is recorded for {machine_key()}")


def assert_equal(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """By parts, so that a difference names the first update and key."""
    assert len(expected["metrics"]) == len(found["metrics"])
    for before, now in zip(expected["metrics"], found["metrics"], strict=True):
        assert now == before, f"update {before.get('step')}"
    for part in expected:
        assert found[part] == expected[part], part
