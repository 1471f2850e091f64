"""Versions outside the tested ranges keep a GPU engine from being used, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from test_gpu_path import WHOLE_GPU, config_of, settings

from remote_trainer.engines.selection import EngineChoice
from remote_trainer.engines.versions import untested, version_problems
from remote_trainer.errors import EXIT_USER_INPUT, UserInputError
from remote_trainer.packages import Distribution, Installed, our_packages
from remote_trainer.pipeline import backend as choosing
from remote_trainer.pipeline import train as training
from remote_trainer.pipeline.check import check_config

OURS = Distribution(
    "0.1.0",
    requires=(
        "torch<2.16,>=2.13; extra == 'train'",
        "trl>=1.14.2; extra == 'train'",
        "remote-trainer[train]; extra == 'unsloth'",
        "torch<2.15; extra == 'unsloth'",
        "unsloth<2026.11,>=2026.10.7; extra == 'unsloth'",
        "vllm<0.31,>=0.30; extra == 'unsloth'",
    ),
    extras=("train", "unsloth"),
    python=">=3.11",
)
TESTED = {"torch": "2.13.0", "trl": "1.14.2", "unsloth": "2026.10.7", "vllm": "0.30.0"}
UNSLOTH = EngineChoice("unsloth", "vllm", True)
VLLM = EngineChoice("transformers", "vllm", False)
TRANSFORMERS = EngineChoice("transformers", "transformers", False)


def installed(**versions: str) -> Installed:
    found = {name: Distribution(version) for name, version in {**TESTED, **versions}.items()}
    return {"remote-trainer": OURS, **found}


@pytest.mark.parametrize(
    ("choice", "versions", "names"),
    [
        (UNSLOTH, {}, []),
        (UNSLOTH, {"vllm": "0.31.0"}, ["vllm"]),
        (UNSLOTH, {"vllm": "0.29.1", "unsloth": "2026.11.1"}, ["unsloth", "vllm"]),
        (UNSLOTH, {"torch": "2.15.0"}, ["torch"]),
        (UNSLOTH, {"torch": "2.14.0+cu130"}, []),
        (UNSLOTH, {"trl": "1.13"}, []),  # the trainer's, whatever the engine
        (VLLM, {"vllm": "0.31.0", "unsloth": "2026.11.1"}, ["vllm"]),
        (VLLM, {"torch": "2.15.0"}, []),
        (VLLM, {"torch": "2.11.0"}, ["torch"]),
        (TRANSFORMERS, {"torch": "2.11.0", "vllm": "0.31.0", "unsloth": "2026.11.1"}, []),
    ],
)
def test_what_an_engine_was_not_tested_with(
    choice: EngineChoice, versions: dict[str, str], names: list[str]
) -> None:
    packages = our_packages(installed(**versions))
    assert sorted(package.name for package in untested(choice, packages)) == names


def test_a_problem_names_range_command_and_way_round() -> None:
    (problem,) = version_problems(UNSLOTH, our_packages(installed(vllm="0.31.0")))
    assert str(problem) == (
        "vllm: 0.31.0 is here, and the engine Unsloth is tested with >=0.30,<0.31: python -m pip "
        "install 'vllm>=0.30,<0.31'; `train --allow-changed` uses it nevertheless"
    )


@pytest.fixture
def newer_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU and a vLLM that was never tried."""
    monkeypatch.setattr(choosing, "find_facts", lambda: WHOLE_GPU)
    monkeypatch.setattr(choosing, "read_installed", lambda: installed(vllm="0.31.0"))


class Loaded(Exception):
    """In place of a model."""


@pytest.mark.usefixtures("newer_vllm")
def test_check_and_train_refuse_it_and_train_may_be_told_to_go_on(
    llama_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def load(*_: Any) -> None:
        raise Loaded("the engine is loaded")

    monkeypatch.setattr(training, "load_trainable", load)
    asked = settings(llama_folder, tmp_path, model={"backend": "unsloth"})
    config = config_of(**asked)
    for refuse in (lambda: check_config(config), lambda: training.run(config, "")):
        with pytest.raises(UserInputError, match=r"vllm: 0\.31\.0 is here") as refused:
            refuse()
        assert refused.value.exit_code == EXIT_USER_INPUT
        assert len(refused.value.problems) == 1
    with pytest.raises(Loaded, match="the engine is loaded"):
        training.run(config, "", allow_changed=True)
    assert "vllm: 0.31.0 is here, and the engine Unsloth is tested with" in caplog.text


@pytest.mark.usefixtures("newer_vllm")
def test_an_engine_that_does_not_use_it_does_not_mind(llama_folder: Path, tmp_path: Path) -> None:
    model = {"backend": "transformers", "load_in_4bit": False}
    asked = settings(llama_folder, tmp_path, model=model, generation={"engine": "transformers"})
    assert check_config(config_of(**asked)).base is not None
