"""A run against a card that is not here: what is refused, what is warned of, and what helps."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_gpu_path import WHOLE_GPU, config_of, settings
from typer.testing import CliRunner

from remote_trainer.cli.app import app
from remote_trainer.engines.unsloth_import import MEMORY_SHARE
from remote_trainer.errors import UserInputError
from remote_trainer.models.hardware import card_memory
from remote_trainer.pipeline import backend as choosing
from remote_trainer.pipeline import resources
from remote_trainer.pipeline.check import check_config
from remote_trainer.planning.card import Card, misfits, tight, vllm_share
from remote_trainer.planning.memory import GIB

GB = 1e9


def memory(engine: str, weights: float, in_4bit: bool = False, **other: float) -> dict[str, Any]:
    """An estimate in GB, as `gpu_memory` makes it in bytes."""
    parts = {"adapter": 0.5, "sampling": 3.0, "update": 2.0, "context": 1.0, **other}
    total = weights + parts["adapter"] + parts["context"] + max(parts["sampling"], parts["update"])
    sizes = {"weights": weights, **parts, "total": total}
    return {"engine": engine, "in_4bit": in_4bit, **{k: v * GB for k, v in sizes.items()}}


def card(total: float, free: float) -> Card:
    return Card(total * GB, free * GB)


@pytest.mark.parametrize(
    ("engine", "gib", "trl", "environ", "share"),
    [
        ("transformers", 24, {}, {}, None),
        ("vllm", 24, {}, {}, 0.3),
        ("vllm", 24, {"vllm_gpu_memory_utilization": 0.55}, {}, 0.55),
        ("unsloth", 80, {}, {}, 0.925 * 0.95),
        ("unsloth", 24, {}, {}, 0.825 * 0.95),
        ("unsloth", 8, {}, {}, 0.75 * 0.95),
        ("unsloth", 24, {}, {"UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE": "1"}, 0.5),
        ("unsloth", 24, {}, {"UNSLOTH_VLLM_STANDBY": "0"}, 0.5),
    ],
)
def test_what_vllm_reserves(
    engine: str, gib: float, trl: dict[str, Any], environ: dict[str, str], share: float | None
) -> None:
    found = vllm_share(engine, trl, Card(gib * GIB, gib * GIB), environ, MEMORY_SHARE)
    assert found == (share if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("needs", "here", "share", "where", "says"),
    [
        (memory("transformers", 15), card(16, 15), None, "model.name", "load_in_4bit: true, a sm"),
        (memory("transformers", 15, True), card(16, 15), None, "model.name", "a smaller model, a"),
        (memory("transformers", 5), card(16, 15), None, None, ""),
        (memory("unsloth", 5, True), card(16, 15), 0.76, None, ""),
        # Another program holds part of the card, and vLLM asks for its share of all of it.
        (memory("unsloth", 5, True), card(16, 11), 0.76, "UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE",
         "reserve 76% of the GPU, 12.2 GB, and 11.0 GB are left for it; end other programs"),
        (memory("unsloth", 9), card(16, 15), 0.5, "UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE",
         "the weights alone take 9.0 GB; write model.load_in_4bit: true"),
        # transformers' copy of the weights is there when vLLM starts.
        (memory("vllm", 6), card(16, 15), 0.6, "training.trl.vllm_gpu_memory_utilization",
         "9.6 GB, and 8.0 GB are left for it; write at most 0.50"),
        (memory("vllm", 6), card(24, 23), 0.2, "training.trl.vllm_gpu_memory_utilization",
         "4.8 GB, and the weights alone take 6.0 GB; write at least 0.26"),
        (memory("vllm", 6), card(24, 23), 0.5, None, ""),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_the_setting(
    needs: dict[str, Any], here: Card, share: float | None, where: str | None, says: str
) -> None:
    problems = misfits(needs, here, share)
    assert [problem.where for problem in problems] == ([where] if where else [])
    assert all(says in problem.message for problem in problems)


def test_a_tight_card_is_a_warning_with_three_settings() -> None:
    assert tight(memory("transformers", 5), card(16, 9.6)) is None
    assert tight(memory("transformers", 5), card(16, 9)) == (
        "the run takes about 9.5 GB of GPU memory by the estimate (beside the weights, most for "
        "the sampling), and 9.0 GB of 16.0 GB are free; what helps: a smaller "
        "training.max_completion_length, training.num_generations, or model.load_in_4bit: true"
    )
    told = tight(memory("unsloth", 5, True, update=4.0), card(16, 9))
    assert told is not None
    assert "most for the update" in told
    assert told.endswith("or training.per_device_train_batch_size")


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("16384, 15000\n81920, 80000\n", (16384 * 2**20, 15000 * 2**20)),
        ("[N/A], 15000\n", None),
        ("", None),
    ],
)
def test_what_nvidia_smi_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str, found: Any
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\nprintf '{printed}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert card_memory() == found
    assert (tmp_path / "asked").read_text().endswith("--id 3\n")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert card_memory() is None


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU on which another program left 1 of 16 GB."""
    for module in (choosing, resources):
        monkeypatch.setattr(module, "find_facts", lambda: WHOLE_GPU)
    monkeypatch.setattr(resources, "card_memory", lambda patience_s: (16 * GB, 1 * GB))


@pytest.mark.usefixtures("small_card")
def test_check_refuses_a_share_that_is_not_free(llama_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(settings(llama_folder, tmp_path, model={"backend": "unsloth"})))
    told = CliRunner().invoke(app, ["check", str(file), "--json"])
    assert told.exit_code == 2
    (problem,) = json.loads(told.output)["problems"]
    assert problem["where"] == "UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE"
    assert "1.0 GB are left for it" in problem["message"]


@pytest.mark.usefixtures("small_card")
def test_check_warns_where_it_is_tight(llama_folder: Path, tmp_path: Path) -> None:
    model = {"backend": "transformers", "load_in_4bit": False}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(settings(llama_folder, tmp_path, model=model)))
    told = CliRunner().invoke(app, ["check", str(file), "--json"])
    (warning,) = [w for w in json.loads(told.output)["warnings"] if "GPU memory" in w]
    assert "1.0 GB of 16.0 GB are free" in warning


def test_nothing_is_said_where_no_gpu_would_train(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(**settings(llama_folder, tmp_path))
    plan = check_config(config)
    monkeypatch.setattr(resources, "card_memory", lambda patience_s: (16 * GB, 0.1 * GB))
    assert resources.require_room(config, plan) == []  # torch sees none


@pytest.mark.usefixtures("small_card")
def test_train_refuses_it_too(llama_folder: Path, tmp_path: Path) -> None:
    from remote_trainer.pipeline.train import run

    config = config_of(**settings(llama_folder, tmp_path, model={"backend": "unsloth"}))
    with pytest.raises(UserInputError, match="are left for it"):
        run(config, "")
