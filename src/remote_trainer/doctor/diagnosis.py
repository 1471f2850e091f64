"""What is installed, what works here, and how to fix the rest. Downloads nothing."""

import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from remote_trainer.config import RunConfig
from remote_trainer.cpu.malloc import why_not_kept
from remote_trainer.doctor.open_ports import RAY_PORTS, open_ray_ports
from remote_trainer.engines.selection import INSTALL_PLUGIN, EngineChoice
from remote_trainer.engines.versions import untested
from remote_trainer.errors import UserInputError
from remote_trainer.llama_cpp.convert import missing_parts
from remote_trainer.models.builtin_model import BUILTIN_NAME
from remote_trainer.models.hardware import Machine, Torch, find_machine, find_torch, why_no_cgroup
from remote_trainer.models.hub_access import HubAccess, find_hub_access
from remote_trainer.models.resolve import find_model
from remote_trainer.openmp import describe_waiting
from remote_trainer.packages import (
    BASE,
    OURSELVES,
    Conflict,
    Installed,
    Package,
    VersionSet,
    allows,
    conflicts,
    install_extra,
    our_packages,
    pip_install,
    reach_of,
    read_installed,
    used_extras,
    version_set,
)
from remote_trainer.pipeline.backend import engine_of

TRAIN = "train"
UNSLOTH = "unsloth"
NEEDED = (BASE, TRAIN)
"""Extras that training requires."""
CAPPED_BY_UNSLOTH = ("torch", "transformers", "trl", "datasets")
"""Packages whose newest version Unsloth does not support, while the other extras do."""
FOR_DEVELOPERS = ("dev", "bench", "browser")
"""Extras that only developers need; not reported."""
LEAST_FREE_GB = 3.0
"""Disk space for the built-in model, a run of it and its exports."""
BF16_CAPABILITY = (8, 0)
NVIDIA_DRIVER = "the driver finds a GPU ({gpu}, driver {driver}), but torch {torch} does not: "


@dataclass(frozen=True)
class Finding:
    """One thing to fix or to know."""

    kind: Literal["problem", "advice"]
    """A problem prevents training here; advice does not."""
    message: str
    command: str | None = None
    """Shell command that fixes it; None if no command does."""


@dataclass(frozen=True)
class State:
    """Everything that the findings are based on."""

    python: str
    system: str
    installed: Installed
    machine: Machine
    torch: Torch | None
    hub: HubAccess
    builtin_cached: bool
    llama_cpp_missing: tuple[str, ...] = ()
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES, where it is set."""
    waiting: str = describe_waiting({})
    """Wait policy of the OpenMP threads."""
    switched_off: tuple[str, ...] = ()
    """Optimisations that this system does not support, each with the reason."""
    open_ports: tuple[int, ...] = ()
    """Ports of Ray that other machines can reach."""


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` reports."""

    state: State
    packages: list[Package]
    engine: EngineChoice | None
    """The engine for the config (or the default config); None if no engine can run it."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the config can train here."""
        return not any(finding.kind == "problem" for finding in self.findings)

    @property
    def version_set(self) -> VersionSet | None:
        """Which of the version sets that the tests ran with is installed."""
        return version_set(self.state.installed)

    def extras(self) -> dict[str, list[str]]:
        """Each extra with the packages that are missing or of another version; empty: complete."""
        incomplete: dict[str, list[str]] = {}
        for package in self.packages:
            lacking = incomplete.setdefault(package.extra, [])
            lacking += [] if package.fits else [package.name]
        return incomplete

    def as_json(self) -> dict[str, Any]:
        """JSON form; of a secret, only whether it is set."""
        state = self.state
        return {
            "ok": self.ok,
            "findings": [asdict(finding) for finding in self.findings],
            "version_set": asdict(self.version_set) if self.version_set else None,
            "python": state.python,
            "system": state.system,
            "packages": [{**asdict(p), "fits": p.fits} for p in self.packages],
            "extras": {
                name: {"complete": not lacking, "lacks": lacking, "install": install_extra(name)}
                for name, lacking in self.extras().items()
            },
            "machine": asdict(state.machine),
            "torch": asdict(state.torch) if state.torch else None,
            "hub": asdict(state.hub),
            "builtin_model_cached": state.builtin_cached,
            "llama_cpp_missing": list(state.llama_cpp_missing),
            "engine": asdict(self.engine) if self.engine else None,
            "waiting": state.waiting,
            "switched_off": list(state.switched_off),
            "open_ports": list(state.open_ports),
        }


def look_around() -> State:
    """The state of this machine and environment; imports torch where it is installed."""
    torch = find_torch()
    return State(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        installed=read_installed(),
        machine=find_machine(),
        torch=torch,
        hub=find_hub_access(),
        builtin_cached=find_model(BUILTIN_NAME) is not None,
        llama_cpp_missing=tuple(_llama_cpp_missing()),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        waiting=describe_waiting(os.environ),
        switched_off=tuple(_switched_off(torch)),
        open_ports=open_ray_ports(),
    )


def _switched_off(torch: Torch | None) -> Iterable[str]:
    """Optimisations for Linux that are off here, with reasons."""
    if reason := why_not_kept():
        yield f"reuse of freed memory ({reason})"
    if torch is not None and torch.error is None and not torch.ordered_products:
        yield "prepacked weights (this torch has no oneDNN)"
    if reason := why_no_cgroup():
        yield f"container memory limit ({reason})"


def _llama_cpp_missing() -> list[str]:
    """What a GGUF export lacks: converter, quantiser, or the reader that verifies it."""
    reader = [] if find_spec("xllamacpp") else ["llama.cpp itself: install remote-trainer[gguf]"]
    return [*missing_parts("q4_k_m"), *reader]


def diagnose(state: State, config: RunConfig | None = None) -> Diagnosis:
    """Findings, most urgent first; ``config`` None: the defaults."""
    if OURSELVES not in state.installed:
        lost = "remote-trainer is on sys.path but not installed, so its requirements are unknown"
        return Diagnosis(state, [], None, [Finding("problem", lost, "python -m pip install -e .")])
    packages = our_packages(state.installed)
    engine: EngineChoice | None = None
    refused: list[Finding] = []
    if state.torch and state.torch.error is None:
        try:
            engine = engine_of(config or RunConfig())
        except UserInputError as error:
            refused = [Finding("problem", str(problem)) for problem in error.problems]
    computing = untested(engine, packages) if engine else []
    found = [*_of_packages(state, packages, computing), *_of_torch(state), *_of_machine(state)]
    found += refused
    found += _of_conflicts(state.installed, packages, engine)
    return Diagnosis(
        state, packages, engine, sorted(found, key=lambda each: each.kind != "problem")
    )


def _of_packages(
    state: State, packages: list[Package], untested_here: list[Package]
) -> Iterable[Finding]:
    """Missing packages, and versions outside the declared ranges.

    The latter are a problem for ``untested_here``, which the chosen GPU engine needs.
    """
    python = state.installed[OURSELVES].python
    if not allows(python, state.python):
        yield Finding("problem", f"Python {state.python} is installed, but {python} is required")
    disputed = {conflict.name for conflict in conflicts(state.installed)}
    used = used_extras(packages)
    reported: set[str] = set()
    for extra in dict.fromkeys(package.extra for package in packages):
        if extra in FOR_DEVELOPERS:
            continue
        kind: Literal["problem", "advice"] = "problem" if extra in NEEDED else "advice"
        own = [package for package in packages if package.extra == extra]
        if kind == "advice" and extra not in used:
            continue
        missing = [package.name for package in own if package.version is None]
        if missing:
            text = f"the extra {extra} lacks {', '.join(missing)}"
            yield Finding(kind, text, install_extra(extra))
        for package in own:
            if package.version and not package.fits and package.name not in reported | disputed:
                reported.add(package.name)
                text = (
                    f"{package.name} {package.version} is installed, but {package.wanted} is "
                    "required"
                )
                fix = pip_install(package.name, package.wanted)
                hurts = package in untested_here
                yield Finding("problem" if hurts else kind, text + _why(package), fix)


def _why(package: Package) -> str:
    """The reason for a version limit that may surprise."""
    if package.extra == UNSLOTH and package.name in CAPPED_BY_UNSLOTH:
        return " (Unsloth does not support newer versions)"
    if package.name == "trl" and (package.version or "").startswith("1.15."):
        return " (trl 1.15 cannot train on a CPU)"
    if package.name == "trl":
        return " (the engine uses internals of trl that other versions do not have)"
    if package.name == "transformers":
        return " (the engine hooks into its layers, and newer versions are untested)"
    return ""


def _of_conflicts(
    installed: Installed, packages: list[Package], engine: EngineChoice | None
) -> Iterable[Finding]:
    """Versions that conflict with the requirements of other installed packages."""
    unsloth = [UNSLOTH] if engine is not None and engine.backend == UNSLOTH else []
    needed = set(reach_of(installed, [*NEEDED, *unsloth]))
    unfit = {package.name for package in packages if package.extra in NEEDED and not package.fits}
    for conflict in conflicts(installed):
        hurts = bool(needed & set(conflict.required_by)) or conflict.name in unfit
        yield Finding(
            "problem" if hurts else "advice", _conflict_text(conflict), conflict.fix_command
        )


def _conflict_text(conflict: Conflict) -> str:
    here = f"{conflict.version} is installed" if conflict.version else "it is not installed"
    return f"{', '.join(conflict.wanted_by)}; {here}"


def _of_torch(state: State) -> Iterable[Finding]:
    """Whether torch can be imported and uses the GPU, if there is one."""
    torch = state.torch
    if torch is None:
        return  # reported with its extra
    reinstall = f"python -m pip uninstall --yes torch && {install_extra(TRAIN)}"
    if torch.error is not None:
        text = f"torch {torch.version} cannot be imported: {torch.error}"
        yield Finding("problem", text, reinstall)
    elif state.machine.gpus and not torch.gpus:
        first = state.machine.gpus[0]
        seen = NVIDIA_DRIVER.format(gpu=first.name, driver=first.driver, torch=torch.version)
        if torch.cuda_build is None:
            yield Finding("advice", f"{seen}it is a CPU-only build", reinstall)
        elif state.visible_devices is not None:
            hidden = f"CUDA_VISIBLE_DEVICES={state.visible_devices!r} hides it"
            yield Finding("advice", seen + hidden, "unset CUDA_VISIBLE_DEVICES")
        else:
            text = f"it is built for CUDA {torch.cuda_build}; a newer driver is needed"
            yield Finding("advice", seen + text)


def _of_machine(state: State) -> Iterable[Finding]:
    """Limits of this machine, and packages that would help or harm."""
    installed, torch = state.installed, state.torch
    cuda = torch is not None and bool(torch.gpus)
    if cuda and UNSLOTH not in installed:
        text = "this GPU could train with Unsloth and sample with vLLM, which are not installed"
        yield Finding("advice", text, install_extra(UNSLOTH))
    if "vllm" in installed and "vllm-bnb-plugin" not in installed:
        text = "vLLM cannot load 4-bit weights without vllm-bnb-plugin (separate since vLLM 0.28)"
        yield Finding("advice", text, INSTALL_PLUGIN)
    for port in state.open_ports:
        text = (
            f"other machines can reach port {port} here, which Ray uses ({RAY_PORTS[port]}); "
            "without a token they can run commands: stop Ray and start it with "
            "RAY_AUTH_MODE=token and --dashboard-host=127.0.0.1, or close the port in the firewall"
        )
        yield Finding("advice", text)
    if "liger-kernel" in installed and not cuda:
        text = "liger-kernel needs triton and a GPU, so it is not used here"
        yield Finding("advice", text, "python -m pip uninstall --yes liger-kernel")
    if "kernels" in installed and state.hub.offline:
        text = "bitsandbytes downloads kernels from the hub if the package kernels is installed"
        yield Finding("advice", text, "python -m pip uninstall --yes kernels")
    if torch and torch.gpus and (torch.gpus[0].capability or BF16_CAPABILITY) < BF16_CAPABILITY:
        text = f"{torch.gpus[0].name} does not compute in bfloat16: write model.dtype: float16"
        yield Finding("advice", text)
    if state.machine.cache_free_gb < LEAST_FREE_GB:
        text = (
            f"the disk of the cache folder has {state.machine.cache_free_gb:.1f} GB free, but the "
            f"built-in model and its exports take {LEAST_FREE_GB:.0f} GB; free disk space, or set "
            "REMOTE_TRAINER_CACHE to another folder"
        )
        yield Finding("advice", text)
