"""Doctor on made-up machines: what it finds, what it says to do, and when it says no."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.cli.texts import describe_diagnosis
from remote_trainer.config import parse_config
from remote_trainer.cpu.malloc import keep_freed_memory
from remote_trainer.cpu.prepacked_linear import can_order
from remote_trainer.doctor.diagnosis import Finding, State, diagnose, look_around
from remote_trainer.engines.selection import Facts
from remote_trainer.models import hardware as machine
from remote_trainer.models import hub_access
from remote_trainer.models.hardware import Gpu, Machine, Torch, driver_gpus, find_machine
from remote_trainer.models.hub_access import HubAccess, find_hub_access
from remote_trainer.packages import VERSION_SETS, Distribution
from remote_trainer.pipeline import backend

OURS = Distribution(
    "0.1.0",
    requires=(
        "rich>=13",
        "torch<2.15,>=2.13; extra == 'train'",
        "trl!=1.15.*,<1.16,>=1.14.2; extra == 'train'",
        "remote-trainer[train]; extra == 'unsloth'",
        "unsloth>=2026.10.7; extra == 'unsloth'",
        "vllm<0.31,>=0.30; extra == 'unsloth'",
        "vllm-bnb-plugin>=0.0.3; extra == 'unsloth'",
        "pytest>=9; extra == 'dev'",
        "ruff>=0.17; extra == 'dev'",
    ),
    extras=("train", "unsloth", "dev"),
    python=">=3.11,<3.15",
)
LIGHT = {"remote-trainer": OURS, "rich": Distribution("15.0.0")}
FULL = {**LIGHT, "torch": Distribution("2.13.0"), "trl": Distribution("1.14.2")}
WHOLE = {
    **FULL,
    "unsloth": Distribution("2026.10.7", requires=("trl<=1.15.0",)),
    "vllm": Distribution("0.30.0"),
    "vllm-bnb-plugin": Distribution("0.0.3"),
}
H100 = Gpu("NVIDIA H100", 85.0, (9, 0))
SEEN = Gpu("NVIDIA H100", 85.0, driver="550.54")
ON_CPU = Torch("2.13.0+cpu", bf16_cpu=True)
ON_GPU = Torch("2.13.0", cuda_build="13.0", gpus=(H100,), bf16_cpu=True, bf16_gpu=True)
CPU_STATE = State(
    python="3.11.7",
    system="Linux x86_64",
    installed=FULL,
    machine=Machine(cores=2, memory_gb=24.0, cache_free_gb=50.0),
    torch=ON_CPU,
    hub=HubAccess(offline=False, token=False),
    builtin_cached=True,
)
GPU_STATE = replace(
    CPU_STATE, installed=WHOLE, machine=replace(CPU_STATE.machine, gpus=(SEEN,)), torch=ON_GPU
)
TRAIN_COMMAND = "python -m pip install 'remote-trainer[train]'"


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_facts", lambda: Facts(bitsandbytes=True))


def with_packages(state: State, **versions: str) -> State:
    named = {name.replace("_", "-"): Distribution(version) for name, version in versions.items()}
    return replace(state, installed={**state.installed, **named})


def without(state: State, *names: str) -> State:
    left = {name: each for name, each in state.installed.items() if name not in names}
    return replace(state, installed=left)


def only_finding(state: State) -> Finding:
    (found,) = diagnose(state).findings
    return found


def test_a_cpu_machine_with_train_can_train() -> None:
    diagnosis = diagnose(CPU_STATE)
    assert diagnosis.ok
    assert diagnosis.findings == []
    assert diagnosis.engine is not None
    assert (diagnosis.engine.backend, diagnosis.engine.in_4bit) == ("transformers", False)
    assert diagnosis.extras() == {
        "base": [],
        "train": [],
        "unsloth": ["unsloth", "vllm", "vllm-bnb-plugin"],
        "dev": ["pytest", "ruff"],
    }


def test_the_light_install_cannot_train_and_says_how_to() -> None:
    diagnosis = diagnose(replace(CPU_STATE, installed=LIGHT, torch=None))
    assert not diagnosis.ok
    assert diagnosis.engine is None
    assert diagnosis.findings == [
        Finding("problem", "the extra train lacks torch, trl", TRAIN_COMMAND)
    ]


def test_versions_outside_the_range() -> None:
    assert only_finding(with_packages(CPU_STATE, trl="1.15.0")) == Finding(
        "problem",
        "trl 1.15.0 is installed, but >=1.14.2,!=1.15.*,<1.16 is required (trl 1.15 cannot train "
        "on a CPU)",
        "python -m pip install 'trl>=1.14.2,!=1.15.*,<1.16'",
    )
    assert only_finding(replace(CPU_STATE, python="3.10.1")) == Finding(
        "problem", "Python 3.10.1 is installed, but >=3.11,<3.15 is required"
    )


@pytest.mark.parametrize("used", [True, False])
def test_an_untested_vllm_keeps_a_config_from_training_where_it_would_sample(
    monkeypatch: pytest.MonkeyPatch, used: bool
) -> None:
    facts = Facts(
        cuda=used, capability=(9, 0), bitsandbytes=True, unsloth=True, vllm=True, bnb_plugin=True
    )
    monkeypatch.setattr(backend, "find_facts", lambda: facts)
    assert only_finding(with_packages(GPU_STATE, vllm="0.33.0")) == Finding(
        "problem" if used else "advice",
        "vllm 0.33.0 is installed, but >=0.30,<0.31 is required",
        "python -m pip install 'vllm>=0.30,<0.31'",
    )


def test_a_conflict_is_told_once_with_a_version_that_suits_both() -> None:
    found = only_finding(with_packages(GPU_STATE, trl="1.16.0"))
    assert found.kind == "problem"
    assert found.message == (
        "unsloth 2026.10.7 wants trl<=1.15.0, remote-trainer 0.1.0 wants "
        "trl>=1.14.2,!=1.15.*,<1.16; 1.16.0 is installed"
    )
    assert found.command == "python -m pip install 'trl>=1.14.2,!=1.15.*,<=1.15.0,<1.16'"


def test_a_conflict_of_packages_that_training_does_not_need_is_advice() -> None:
    vllm = Distribution("0.30.0", requires=("numba==0.65.0",))
    installed = {**WHOLE, "vllm": vllm, "numba": Distribution("0.66.0")}
    diagnosis = diagnose(replace(GPU_STATE, installed=installed))
    assert [(each.kind, each.command) for each in diagnosis.findings] == [
        ("advice", "python -m pip install 'numba==0.65.0'")
    ]
    assert diagnosis.ok


def test_a_conflict_that_training_depends_on_is_a_problem() -> None:
    broken = Distribution("1.14.2", requires=("accelerate>=1.4",))
    found = only_finding(replace(CPU_STATE, installed={**FULL, "trl": broken}))
    assert found == Finding(
        "problem",
        "trl 1.14.2 wants accelerate>=1.4; it is not installed",
        "python -m pip install 'accelerate>=1.4'",
    )


def test_pieces_of_unsloth() -> None:
    assert only_finding(without(GPU_STATE, "unsloth", "vllm", "vllm-bnb-plugin")) == Finding(
        "advice",
        "this GPU could train with Unsloth and sample with vLLM, which are not installed",
        "python -m pip install 'remote-trainer[unsloth]'",
    )
    lacks, plugin = diagnose(without(GPU_STATE, "vllm-bnb-plugin")).findings
    assert lacks.message == "the extra unsloth lacks vllm-bnb-plugin"
    assert plugin.command == "python -m pip install 'vllm-bnb-plugin>=0.0.3'"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"liger_kernel": "0.8.5"}, "python -m pip uninstall --yes liger-kernel"),
        ({"pytest": "9"}, None),  # a developer's extra, half there by chance
        ({"kernels": "1"}, None),
    ],
)
def test_packages_that_only_a_gpu_needs(extra: Mapping[str, str], says: str | None) -> None:
    commands = [finding.command for finding in diagnose(with_packages(CPU_STATE, **extra)).findings]
    assert commands == ([says] if says else [])
    assert diagnose(with_packages(GPU_STATE, **extra)).findings == []


def test_kernels_offline() -> None:
    offline = replace(CPU_STATE, hub=HubAccess(offline=True, token=False))
    assert only_finding(with_packages(offline, kernels="1")).kind == "advice"


def test_a_gpu_that_torch_does_not_see() -> None:
    start = "the driver finds a GPU (NVIDIA H100, driver 550.54), but torch "
    blind = replace(GPU_STATE, torch=ON_CPU)
    assert only_finding(blind) == Finding(
        "advice",
        f"{start}2.13.0+cpu does not: it is a CPU-only build",
        f"python -m pip uninstall --yes torch && {TRAIN_COMMAND}",
    )
    old_driver = replace(blind, torch=Torch("2.13.0", cuda_build="13.0"))
    assert only_finding(old_driver).message == (
        f"{start}2.13.0 does not: it is built for CUDA 13.0; a newer driver is needed"
    )
    hidden = only_finding(replace(old_driver, visible_devices=""))
    assert hidden.message == f"{start}2.13.0 does not: CUDA_VISIBLE_DEVICES='' hides it"
    assert hidden.command == "unset CUDA_VISIBLE_DEVICES"


def test_a_torch_that_cannot_be_imported_is_a_problem() -> None:
    broken = Torch("2.13.0", error="OSError: libcudart.so.13: cannot open")
    diagnosis = diagnose(replace(CPU_STATE, torch=broken))
    (found,) = diagnosis.findings
    assert (found.kind, diagnosis.engine, diagnosis.ok) == ("problem", None, False)
    assert found.message == "torch 2.13.0 cannot be imported: OSError: libcudart.so.13: cannot open"


def test_an_old_gpu_and_a_full_disk() -> None:
    t4 = replace(ON_GPU, gpus=(Gpu("Tesla T4", 15.8, (7, 5)),), bf16_gpu=False)
    assert only_finding(replace(GPU_STATE, torch=t4)).message == (
        "Tesla T4 does not compute in bfloat16: write model.dtype: float16"
    )
    full = replace(CPU_STATE, machine=replace(CPU_STATE.machine, cache_free_gb=0.4))
    assert only_finding(full).message.startswith("the disk of the cache folder has 0.4 GB free")


def test_a_config_that_demands_what_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config("model: {backend: unsloth}", "c.yaml")
    diagnosis = diagnose(CPU_STATE, config)
    assert not diagnosis.ok
    assert [finding.message.split(":")[0] for finding in diagnosis.findings] == [
        "model.backend",
        "model.backend",
    ]
    whole = Facts(True, (9, 0), "NVIDIA H100", True, True, True, True)
    monkeypatch.setattr(backend, "find_facts", lambda: whole)
    on_gpu = diagnose(GPU_STATE, config)
    assert on_gpu.engine is not None
    assert (on_gpu.ok, on_gpu.engine.backend, on_gpu.engine.in_4bit) == (True, "unsloth", True)
    # Now what Unsloth does not take keeps this config from training.
    vllm = Distribution("0.30.0", requires=("numba==0.65.0",))
    disputed = replace(GPU_STATE, installed={**WHOLE, "vllm": vllm})
    assert [finding.kind for finding in diagnose(disputed, config).findings] == ["problem"]


def test_a_checkout_that_is_not_installed() -> None:
    diagnosis = diagnose(replace(CPU_STATE, installed={}))
    assert [finding.command for finding in diagnosis.findings] == ["python -m pip install -e ."]
    assert not diagnosis.ok


def test_what_people_read() -> None:
    text = describe_diagnosis(diagnose(with_packages(GPU_STATE, trl="1.16.1")), "a config")
    assert "trl              1.16.1 (!)  >=1.14.2,!=1.15.*,<1.16  train, unsloth\n" in text
    assert "unsloth:     lacks trl\n" in text
    assert "processor:   2 cores, 24.0 GB of memory\n" in text
    assert "GPU:         NVIDIA H100 (85 GB)\n" in text
    assert "bfloat16:    processor, GPU\n" in text
    assert "fast path:   supported on this CPU; `check` reports what the model supports\n" in text
    old = replace(CPU_STATE, torch=replace(ON_CPU, ordered_products=False))
    assert "fast path:   off, because this torch has no " in describe_diagnosis(diagnose(old), "It")
    assert "problems (1)\n  - unsloth 2026.10.7 wants trl<=1.15.0, remote-trainer" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "pip install" not in line)
    light = describe_diagnosis(diagnose(replace(CPU_STATE, installed=LIGHT, torch=None)), "It")
    assert "bfloat16:    unknown without torch\n" in light
    assert light.endswith("It cannot train here: see problems")
    assert f"      {TRAIN_COMMAND}\n" in light


def test_no_token_is_ever_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in hub_access.TOKEN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not find_hub_access().token
    (tmp_path / "token").write_text("hf_very_secret")
    assert find_hub_access().token
    (tmp_path / "token").write_text("")
    monkeypatch.setenv("HF_TOKEN", "hf_other_secret")
    state = replace(CPU_STATE, hub=find_hub_access())
    assert state.hub.token
    shown = json.dumps(diagnose(state).as_json()) + describe_diagnosis(diagnose(state), "It")
    assert "secret" not in shown
    assert "a token (no connection tested)" in shown


def test_what_the_driver_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert driver_gpus() == ()
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA A10G, 23028, 550.54.15'\n")
    program.chmod(0o755)
    (found,) = driver_gpus()
    assert (found.name, found.driver) == ("NVIDIA A10G", "550.54.15")
    assert found.memory_gb == pytest.approx(24.15, abs=0.01)  # 23,028 MiB
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed, no driver'\nexit 9\n")
    assert driver_gpus() == ()


def test_a_container_has_no_more_memory_than_its_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUP", tmp_path / "none")
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "not" / "there"))
    whole = find_machine().memory_gb
    limit.write_text("1000000000\n")
    assert find_machine().memory_gb == 1.0
    limit.write_text("max\n")
    assert find_machine().memory_gb == whole
    assert find_machine().cores >= 1
    assert find_machine().cache_free_gb > 0


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "remote_trainer.cli", "doctor", *arguments],
        capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False,
    )  # fmt: skip


def test_this_very_machine() -> None:
    done = run("configs/supervised.yaml", "--json")
    result: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, result["ok"], done.stderr) == (0, True, "")
    assert result["extras"]["train"] == {"complete": True, "lacks": [], "install": TRAIN_COMMAND}
    assert {p["name"]: p["fits"] for p in result["packages"]}["torch"]
    assert result["engine"]["backend"] in ("transformers", "unsloth")


def test_what_needs_linux_is_off_on_a_mac_and_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUP", tmp_path / "none")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "libc_ver", lambda *_: ("", ""))
    monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    state = look_around()
    assert state.switched_off == (
        "reuse of freed memory (the C library is not glibc)",
        "prepacked weights (this torch has no oneDNN)",
        "container memory limit (Darwin has no cgroups)",
    )
    # Each is really off.
    assert not keep_freed_memory()
    assert not can_order(torch.ones(8, 8))
    assert state.machine.memory_gb > 0.001
    diagnosis = diagnose(replace(CPU_STATE, switched_off=state.switched_off))
    assert diagnosis.findings == []  # nothing that a user could mend
    assert diagnosis.as_json()["switched_off"] == list(state.switched_off)
    text = " ".join(describe_diagnosis(diagnosis, "c").split())
    assert f"off here: {'; '.join(state.switched_off)}; all features work without them" in text
    assert "off here" not in describe_diagnosis(diagnose(CPU_STATE), "c")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other systems lack some of it")
def test_nothing_is_off_on_linux() -> None:
    assert look_around().switched_off == ()


def test_a_wrong_config_is_the_users_mistake() -> None:
    done = run("no.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no.yaml: no such file" in done.stderr


def test_what_unsloth_does_not_take_matters_where_unsloth_is() -> None:
    ours = replace(OURS, requires=(*OURS.requires, "torch<2.14; extra == 'unsloth'"))
    newer = with_packages(CPU_STATE, torch="2.14.1")
    state = replace(newer, installed={**newer.installed, "remote-trainer": ours})
    assert diagnose(state).findings == []
    unsloth = Distribution("2026.10.7")
    wanted = diagnose(replace(state, installed={**state.installed, "unsloth": unsloth}))
    assert [finding.message for finding in wanted.findings] == [
        "the extra unsloth lacks vllm, vllm-bnb-plugin",
        "torch 2.14.1 is installed, but >=2.13,<2.14,<2.15 is required (Unsloth does not support "
        "newer versions)",
    ]
    assert wanted.ok


def test_the_set_of_versions_is_told() -> None:
    newest = dict(VERSION_SETS["constraints-newest.txt"])
    shown = {n.replace("-", "_"): version for n, version in newest.items()}
    diagnosis = diagnose(with_packages(CPU_STATE, **{**shown, "torch": "2.13.0+cpu"}))
    assert diagnosis.as_json()["version_set"] == {
        "name": "newest",
        "file": "constraints-newest.txt",
        "differs": (f"torch 2.13.0 (not {newest['torch']})",),
    }
    text = " ".join(describe_diagnosis(diagnosis, "a config").split())
    assert (
        f"versions: the newest set (constraints-newest.txt) except torch 2.13.0 (not "
        f"{newest['torch']}) base:"
    ) in text
    other = describe_diagnosis(diagnose(with_packages(CPU_STATE, transformers="5.18.0")), "It")
    told = "versions: neither of the tested version sets: transformers 5.18.0, trl 1.14.2"
    assert told in " ".join(other.split())
