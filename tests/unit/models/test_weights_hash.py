"""Which files hold the weights of a model."""

import json
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.errors import UserInputError
from remote_trainer.models.weights_hash import weight_files

INDEX = "model.safetensors.index.json"


def test_an_index_names_the_files(tmp_path: Path) -> None:
    weights = {"b": "model-00002-of-2.safetensors", "a": "model-00001-of-2.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weights}))
    assert [file.name for file in weight_files(tmp_path)] == sorted(weights.values())


@pytest.mark.parametrize(
    "name",
    [
        "../../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "x.bin", "", None, 3,
        ["a.safetensors"], "a\x00.safetensors", "a.safetensors\n", ".safetensors",
        "~/a.safetensors",
    ],
)  # fmt: skip
def test_an_index_cannot_lead_out_of_the_folder(name: Any, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserInputError, match=r"index.json: weight_map names .*no safetensors file"):
        weight_files(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, "{}", '{"weight_map": []}'])
def test_a_damaged_index_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(UserInputError, match=INDEX):
        weight_files(tmp_path)
