"""`training.deterministic`: what it switches, for how long, and where it is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from test_gpu_path import WHOLE_GPU, config_of, settings

from remote_trainer.engines.determinism import CUBLAS, deterministic_kernels
from remote_trainer.errors import UserInputError
from remote_trainer.pipeline import backend as choosing
from remote_trainer.pipeline import train as training
from remote_trainer.pipeline.backend import engine_of
from remote_trainer.run_dir import RunDir


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, "to be removed")
    monkeypatch.delenv(CUBLAS)


def is_on() -> bool:
    return torch.are_deterministic_algorithms_enabled()


def test_off_changes_nothing() -> None:
    with deterministic_kernels(False):
        assert not is_on()
        assert CUBLAS not in os.environ


def test_on_lasts_as_long_as_the_run_and_raises_where_there_is_no_such_kernel() -> None:
    def fail_inside() -> None:
        with deterministic_kernels(True):
            assert is_on()
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
            assert os.environ[CUBLAS] == ":4096:8"
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail_inside()
    assert not is_on()


def test_a_value_of_the_user_s_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":16:8")
    with deterministic_kernels(True):
        assert os.environ[CUBLAS] == ":16:8"


@pytest.mark.parametrize(
    ("backend", "engine", "refused"),
    [("auto", "auto", True), ("transformers", "vllm", True), ("transformers", "auto", False)],
)
def test_it_is_refused_where_others_kernels_compute(
    monkeypatch: pytest.MonkeyPatch, backend: str, engine: str, refused: bool
) -> None:
    monkeypatch.setattr(choosing, "find_facts", lambda: WHOLE_GPU)
    config = config_of(
        model={"backend": backend},
        generation={"engine": engine},
        training={"deterministic": True},
    )
    if not refused:
        assert engine_of(config).generation == "transformers"
        return
    with pytest.raises(UserInputError, match=r"training\.deterministic: true covers torch's"):
        engine_of(config)


def test_a_run_on_a_cpu_goes_through_with_the_same_weights(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    load = choosing.load_trainable

    def watched_load(*given: Any) -> Any:
        seen.append(is_on())
        return load(*given)

    monkeypatch.setattr(training, "load_trainable", watched_load)
    found = []
    for on in (False, True):
        folder = tmp_path / str(on)
        folder.mkdir()
        asked = settings(llama_folder, folder, training={"max_steps": 2, "deterministic": on})
        training.run(config_of(**asked), json.dumps(asked))
        found.append(
            (RunDir(asked["output_dir"]).adapter / "adapter_model.safetensors").read_bytes()
        )
    assert seen == [False, True]
    assert found[0] == found[1]
