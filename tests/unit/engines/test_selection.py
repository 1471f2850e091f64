"""Which engine a config gets: every demand against every lack, without loading anything."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from remote_trainer.engines.selection import EngineChoice, Facts, choose_engine
from remote_trainer.errors import UserInputError

FULL = Facts(
    cuda=True,
    capability=(9, 0),
    gpu="NVIDIA H100 80GB HBM3",
    bitsandbytes=True,
    unsloth=True,
    vllm=True,
    bnb_plugin=True,
)
CPU = Facts(bitsandbytes=True)
BARE_CUDA = replace(FULL, unsloth=False, vllm=False, bnb_plugin=False)


def chosen(facts: Facts, **config: Any) -> tuple[str, str, bool]:
    choice = choose_engine(facts, **config)
    return choice.backend, choice.generation, choice.in_4bit


def refused(facts: Facts, **config: Any) -> list[str]:
    with pytest.raises(UserInputError) as caught:
        choose_engine(facts, **config)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("facts", "config", "expected"),
    [
        (FULL, {}, ("unsloth", "vllm", True)),
        (FULL, {"load_in_4bit": False}, ("unsloth", "vllm", False)),
        (FULL, {"engine": "vllm"}, ("unsloth", "vllm", True)),
        (FULL, {"backend": "unsloth"}, ("unsloth", "vllm", True)),
        (replace(FULL, capability=None), {}, ("unsloth", "vllm", True)),
        (replace(FULL, capability=(7, 0)), {}, ("unsloth", "vllm", True)),
        # Whatever speaks against Unsloth leads to the engine that runs everywhere.
        (CPU, {}, ("transformers", "transformers", False)),
        (replace(FULL, cuda=False), {}, ("transformers", "transformers", False)),
        (BARE_CUDA, {}, ("transformers", "transformers", True)),
        (replace(FULL, vllm=False), {}, ("transformers", "transformers", True)),
        (replace(FULL, bnb_plugin=False), {}, ("transformers", "transformers", True)),
        (replace(FULL, capability=(6, 1)), {}, ("transformers", "transformers", True)),
        (replace(FULL, gpu="NVIDIA GB10"), {}, ("transformers", "transformers", True)),
        (FULL, {"engine": "transformers"}, ("transformers", "transformers", True)),
        (FULL, {"trust_remote_code": True}, ("transformers", "transformers", True)),
        (FULL, {"backend": "transformers"}, ("transformers", "transformers", True)),
        # 16-bit weights need no plugin.
        (replace(FULL, bnb_plugin=False), {"load_in_4bit": False}, ("unsloth", "vllm", False)),
        # vLLM beside transformers: 16 bits, since 4-bit weights cannot be sent to it.
        (FULL, {"backend": "transformers", "engine": "vllm"}, ("transformers", "vllm", False)),
        (FULL, {"engine": "vllm", "vllm_mode": "server"}, ("transformers", "vllm", False)),
        (replace(BARE_CUDA, vllm=True), {"engine": "vllm"}, ("transformers", "vllm", False)),
        # 4 bits where they are asked for, with bitsandbytes where auto asks.
        (CPU, {"load_in_4bit": True}, ("transformers", "transformers", True)),
        (replace(BARE_CUDA, bitsandbytes=False), {}, ("transformers", "transformers", False)),
    ],
)
def test_what_a_config_gets(
    facts: Facts, config: dict[str, Any], expected: tuple[str, str, bool]
) -> None:
    assert chosen(facts, **config) == expected


def test_unsloth_demanded_without_anything_names_all_of_it() -> None:
    assert refused(Facts(), backend="unsloth", engine="transformers", vllm_mode="server") == [
        "model.backend: unsloth needs a CUDA device, but no usable one was found",
        "model.backend: unsloth needs the package unsloth and vllm: "
        "python -m pip install 'remote-trainer[unsloth]'",
        "generation.engine: transformers cannot be combined with model.backend: unsloth, which "
        "samples with vLLM; write auto, or model.backend: transformers",
        "training.trl.vllm_mode: server cannot be combined with model.backend: unsloth, which "
        "runs vLLM in its own process; omit it, or write model.backend: transformers",
    ]


def test_one_missing_piece_is_named_with_its_command() -> None:
    assert refused(replace(FULL, unsloth=False), backend="unsloth") == [
        "model.backend: unsloth needs the package unsloth: "
        "python -m pip install 'remote-trainer[unsloth]'"
    ]
    assert refused(replace(FULL, bnb_plugin=False), backend="unsloth") == [
        "model.backend: unsloth needs vllm-bnb-plugin for 4-bit weights: "
        "python -m pip install 'vllm-bnb-plugin>=0.0.3'"
    ]
    assert refused(BARE_CUDA, engine="vllm") == [
        "generation.engine: vllm needs the package vllm: python -m pip install 'vllm>=0.30,<0.31'"
    ]
    assert refused(replace(CPU, bitsandbytes=False), load_in_4bit=True) == [
        "model.load_in_4bit: true needs bitsandbytes, which is not installed: python -m pip "
        "install 'remote-trainer[train]'"
    ]


def test_devices_on_which_unsloth_would_quietly_do_without_vllm() -> None:
    assert refused(replace(FULL, capability=(6, 1)), backend="unsloth") == [
        "model.backend: unsloth needs compute capability 7.0, but this device has 6.1"
    ]
    assert refused(replace(FULL, gpu="NVIDIA GB10"), backend="unsloth") == [
        "model.backend: unsloth does not run vLLM on a NVIDIA GB10"
    ]
    (remote_code,) = refused(FULL, backend="unsloth", trust_remote_code=True)
    assert remote_code.startswith("model.trust_remote_code: true cannot be combined with")


def test_vllm_beside_transformers_needs_a_device_and_16_bits() -> None:
    found = refused(CPU, backend="transformers", engine="vllm", load_in_4bit=True)
    assert [text.split(":")[0] for text in found] == [
        "generation.engine",
        "generation.engine",
        "model.load_in_4bit",
    ]
    assert "write false, or model.backend: unsloth" in found[2]
    choice = choose_engine(FULL, backend="transformers", engine="vllm")
    assert choice.reasons == (
        "16-bit weights, because 4-bit weights cannot be sent to vLLM after an update",
    )


def test_auto_tells_why_and_demands_need_no_reason() -> None:
    assert choose_engine(CPU).reasons == (
        "transformers trains, because Unsloth needs a CUDA device, but no usable one was found",
    )
    assert choose_engine(replace(BARE_CUDA, capability=(6, 1))).reasons == (
        "transformers trains, because Unsloth needs compute capability 7.0, but this device has "
        "6.1; it needs the package unsloth and vllm: python -m pip install "
        "'remote-trainer[unsloth]'",
    )
    assert choose_engine(FULL, engine="transformers").reasons == (
        "transformers trains, as required by generation.engine",
    )
    assert choose_engine(CPU, backend="transformers") == EngineChoice(
        "transformers", "transformers", False
    )


def test_no_heavy_library_is_imported() -> None:
    code = (
        "import sys; import remote_trainer.engines.selection; "
        "print({'torch', 'transformers', 'unsloth', 'vllm', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
