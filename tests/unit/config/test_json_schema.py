"""The JSON schema for editors: it accepts what loads, and refuses typos."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from remote_trainer.cli.app import app
from remote_trainer.config import dump_config, load_config
from remote_trainer.config.json_schema import config_schema
from remote_trainer.config.schema import ModelSettings, RunConfig
from remote_trainer.rewards import REWARDS

CONFIGS = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


def faults(value: Any) -> list[str]:
    """Paths of what the schema refuses."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(config_schema())
    return sorted(error.json_path for error in validator.iter_errors(value))


def test_the_command_prints_the_schema() -> None:
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0
    assert json.loads(done.output) == config_schema()


def test_settings_have_docstrings_defaults_and_ranges() -> None:
    schema = config_schema()
    assert set(schema["properties"]) == {*RunConfig.model_fields, "config_format"}
    name = schema["$defs"]["ModelSettings"]["properties"]["name"]
    assert name["description"] == ModelSettings.model_fields["name"].description
    assert name["default"] == "builtin/smollm2-135m-instruct"
    generations = schema["$defs"]["TrainingSettings"]["properties"]["num_generations"]
    assert generations["minimum"] == 2
    levels = schema["$defs"]["AlarmLevels"]["properties"]["entropy"]["$ref"]
    assert levels == "#/$defs/entropy_levels"


def test_rewards_are_told_apart_by_their_type() -> None:
    schema = config_schema()
    union = schema["$defs"]["AnyReward"]
    assert set(union["discriminator"]["mapping"]) == set(REWARDS)
    required = {
        name: schema["$defs"][reference.removeprefix("#/$defs/")].get("required", [])
        for name, reference in union["discriminator"]["mapping"].items()
    }
    assert required.pop("inverse_loss") == []
    assert required.pop("function") == ["function"]
    assert all(keys[0] == "type" for keys in required.values())


def test_the_schema_is_valid() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(config_schema())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    assert faults(yaml.safe_load(path.read_text())) == []
    assert faults(yaml.safe_load(dump_config(load_config(path)))) == []


@pytest.mark.parametrize(
    "reward",
    [
        {},
        {"weight": 2},
        {"type": "supervised", "answer_field": "a", "gate": True},
        {"function": "module:name"},
        [{"type": "regex", "pattern": "x", "gate": "ended"}, {"type": "random", "gate": ["ended"]}],
    ],
)
def test_a_reward_is_valid_alone_and_in_a_list(reward: Any) -> None:
    assert faults({"reward": reward}) == []


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"training": {"lerning_rate": 1.0e-4}}, "$.training"),
        ({"training": {"max_steps": 0}}, "$.training.max_steps"),
        ({"reward": {"type": "superviesd"}}, "$.reward"),
        ({"reward": {"type": "inverse_loss", "alignment": "positional"}}, "$.reward"),
        ({"reward": []}, "$.reward"),
        ({"guard": {"levels": {"entropi": {}}}}, "$.guard.levels"),
        ({"output": "runs/x"}, "$"),
    ],
)
def test_a_typo_is_refused(value: Any, path: str) -> None:
    assert faults(value) == [path]
