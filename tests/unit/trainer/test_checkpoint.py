"""Checkpoints that somebody else made, or changed together with their manifest."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.errors import UserInputError
from remote_trainer.run_dir import file_sha256
from remote_trainer.trainer import checkpoint

WRITTEN = Path(__file__).parents[2] / "run_folders/e3d3e9b/run/checkpoints/step-000006"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(WRITTEN, tmp_path / "step-000006"))


def change(file: Path, changed: Callable[[Any], Any]) -> None:
    file.write_text(json.dumps(changed(json.loads(file.read_text()))))


def without_files(manifest: Any) -> Any:
    return {**manifest, "files": {}}


def with_entry(name: str, entry: Any) -> Callable[[Any], Any]:
    return lambda manifest: {**manifest, "files": {**manifest["files"], name: entry}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda manifest: [manifest], "it holds a list, not an object"),
        (lambda manifest: {}, "does not list the files of a checkpoint"),
        (without_files, "does not list the files of a checkpoint"),
        (with_entry("state.json", None), "wrong entry for 'state.json'"),
        (with_entry("state.json", {"sha256": 3}), "wrong entry for 'state.json'"),
        (
            with_entry("../../guard.json", {"sha256": "0" * 64}),
            "wrong entry for '../../guard.json'",
        ),
        (with_entry("/dev/zero", {"sha256": "0" * 64}), "wrong entry for '/dev/zero'"),
    ],
)
def test_a_manifest_of_another_form_is_refused(
    folder: Path, changed: Callable[[Any], Any], message: str
) -> None:
    assert checkpoint.verify(folder)["step"] == 6
    change(folder / "manifest.json", changed)
    with pytest.raises(UserInputError, match=message):
        checkpoint.verify(folder)


def sealed(folder: Path) -> Path:
    """The manifest fits the files again: nothing shows that they were changed."""
    hashes = {file.name: file_sha256(file) for file in folder.iterdir()}
    listed = {name: {"sha256": sha256} for name, sha256 in hashes.items()}
    del listed["manifest.json"]
    change(folder / "manifest.json", lambda manifest: {**manifest, "files": listed})
    assert checkpoint.verify(folder)
    return folder


def optimizer() -> Any:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])


@pytest.mark.parametrize(
    "changed",
    [
        lambda state: {},
        lambda state: {**state, "optimizer": None},
        lambda state: {**state, "optimizer": {"numbers": {"x": 1}, "param_groups": []}},
        lambda state: {**state, "random": {"python": [3, [1], None], "numpy": []}},
        lambda state: {**state, "counters": 3},
    ],
)
def test_a_state_of_another_form_is_an_error_at_its_folder(
    folder: Path, changed: Callable[[Any], Any]
) -> None:
    change(folder / "state.json", changed)
    with pytest.raises(
        UserInputError, match="step-000006: its files are not those of a checkpoint"
    ):
        read_all(sealed(folder))


@pytest.mark.parametrize("name", ["optimizer.safetensors", "rng.safetensors"])
def test_tensors_of_another_form_are_an_error_at_their_folder(folder: Path, name: str) -> None:
    (folder / name).write_bytes((10**9).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserInputError, match="its files are not those of a checkpoint"):
        read_all(sealed(folder))


def read_all(folder: Path) -> None:
    state = torch.get_rng_state()
    try:
        checkpoint.restore_random(folder)
    finally:
        torch.set_rng_state(state)
    checkpoint.read_counters(folder)
    made = optimizer()
    checkpoint.read_state(folder, made, torch.optim.lr_scheduler.ConstantLR(made))
