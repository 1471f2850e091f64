"""The choice of an engine from config, hardware and packages; loads nothing."""

from dataclasses import dataclass
from typing import Literal

from remote_trainer.errors import Problem, UserInputError

INSTALL_UNSLOTH = "python -m pip install 'remote-trainer[unsloth]'"
INSTALL_TRAIN = "python -m pip install 'remote-trainer[train]'"
INSTALL_VLLM = "python -m pip install 'vllm>=0.30,<0.31'"
INSTALL_PLUGIN = "python -m pip install 'vllm-bnb-plugin>=0.0.3'"

# Below this Unsloth 2026.10 does not use vLLM and only prints a line about it.
LEAST_CAPABILITY = (7, 0)
# DGX Spark: Unsloth 2026.10 disables vLLM for this device name.
WITHOUT_VLLM = "GB10"


@dataclass(frozen=True)
class Facts:
    """What the choice depends on: the first GPU and the installed packages."""

    cuda: bool = False
    """Whether a CUDA device can be used."""
    capability: tuple[int, int] | None = None
    """Compute capability of the device; None if unknown, which rules nothing out."""
    gpu: str | None = None
    """Name of the device."""
    bitsandbytes: bool = False
    unsloth: bool = False
    vllm: bool = False
    bnb_plugin: bool = False
    """vllm-bnb-plugin, which vLLM 0.28 and later need to load 4-bit weights."""


@dataclass(frozen=True)
class EngineChoice:
    """What trains, what samples, and why."""

    backend: Literal["transformers", "unsloth"]
    generation: Literal["transformers", "vllm"]
    in_4bit: bool
    reasons: tuple[str, ...] = ()
    """A sentence for each decision that ``auto`` made."""


def choose_engine(
    facts: Facts,
    *,
    backend: Literal["auto", "transformers", "unsloth"] = "auto",
    engine: Literal["auto", "transformers", "vllm"] = "auto",
    load_in_4bit: bool | Literal["auto"] = "auto",
    vllm_mode: Literal["colocate", "server"] = "colocate",
    trust_remote_code: bool = False,
) -> EngineChoice:
    """Choose from the config: model.backend, generation.engine, model.load_in_4bit,
    training.trl.vllm_mode, model.trust_remote_code.

    Unsloth always samples with vLLM in its own process. Raises UserInputError that lists
    everything that the config requires and this machine or environment lacks.
    """
    against = _against_unsloth(engine, vllm_mode, trust_remote_code)
    in_4bit = facts.cuda if load_in_4bit == "auto" else load_in_4bit
    lacks = _lacks_for_unsloth(facts, in_4bit)
    if backend == "unsloth":
        problems = [Problem("model.backend", f"unsloth {lack}") for lack in lacks] + against
        if problems:
            raise UserInputError(problems)
        return EngineChoice("unsloth", "vllm", in_4bit)
    if backend == "transformers":
        return _on_transformers(facts, engine, load_in_4bit, ())
    if against:
        why = f"transformers trains, as required by {', '.join(each.where for each in against)}"
    elif lacks:
        # Without a GPU, installing packages does not help.
        why = (
            "transformers trains, because Unsloth "
            f"{'; it '.join(lacks if facts.cuda else lacks[:1])}"
        )
    else:
        why = "Unsloth trains and vLLM samples: a CUDA device and the extra unsloth are available"
        return EngineChoice("unsloth", "vllm", in_4bit, (why,))
    return _on_transformers(facts, engine, load_in_4bit, (why,))


def _on_transformers(
    facts: Facts,
    engine: Literal["auto", "transformers", "vllm"],
    load_in_4bit: bool | Literal["auto"],
    reasons: tuple[str, ...],
) -> EngineChoice:
    if engine != "vllm":
        in_4bit, more = _bits(facts, load_in_4bit)
        return EngineChoice("transformers", "transformers", in_4bit, (*reasons, *more))
    problems = [Problem("generation.engine", f"vllm {lack}") for lack in _lacks_for_vllm(facts)]
    if load_in_4bit is True:
        problems.append(
            Problem(
                "model.load_in_4bit",
                "true cannot be combined with generation.engine: vllm on the transformers engine, "
                "which sends the weights to vLLM after each update but cannot send 4-bit weights "
                "(trl#4973); write false, or model.backend: unsloth",
            )
        )
    if problems:
        raise UserInputError(problems)
    if load_in_4bit == "auto":
        reasons = (
            *reasons,
            "16-bit weights, because 4-bit weights cannot be sent to vLLM after an update",
        )
    return EngineChoice("transformers", "vllm", False, reasons)


def _bits(facts: Facts, load_in_4bit: bool | Literal["auto"]) -> tuple[bool, tuple[str, ...]]:
    """Whether the transformers engine loads 4-bit weights, and why if set to auto."""
    if load_in_4bit is True and not facts.bitsandbytes:
        raise UserInputError.at(
            "model.load_in_4bit",
            f"true needs bitsandbytes, which is not installed: {INSTALL_TRAIN}",
        )
    if load_in_4bit != "auto":
        return load_in_4bit, ()
    if facts.cuda and not facts.bitsandbytes:
        return False, (f"16-bit weights, because bitsandbytes is not installed: {INSTALL_TRAIN}",)
    return facts.cuda, ()


def _lacks_for_unsloth(facts: Facts, in_4bit: bool) -> list[str]:
    """What Unsloth with vLLM needs and this machine lacks, each with a fix."""
    lacks = [] if facts.cuda else ["needs a CUDA device, but no usable one was found"]
    lacks += _too_old(facts)
    packages = {"unsloth": facts.unsloth, "vllm": facts.vllm}
    missing = [name for name, there in packages.items() if not there]
    if missing:
        lacks.append(f"needs the package {' and '.join(missing)}: {INSTALL_UNSLOTH}")
    elif in_4bit and not facts.bnb_plugin:
        lacks.append(f"needs vllm-bnb-plugin for 4-bit weights: {INSTALL_PLUGIN}")
    return lacks


def _lacks_for_vllm(facts: Facts) -> list[str]:
    """What TRL needs for sampling with vLLM, in this process or on a server."""
    lacks = [] if facts.cuda else ["needs a CUDA device, but no usable one was found"]
    lacks += _too_old(facts)
    if not facts.vllm:
        lacks.append(f"needs the package vllm: {INSTALL_VLLM}")
    return lacks


def _too_old(facts: Facts) -> list[str]:
    """Devices for which Unsloth would print a line and sample without vLLM."""
    if not facts.cuda:
        return []
    if facts.capability is not None and facts.capability < LEAST_CAPABILITY:
        has, least = (".".join(map(str, each)) for each in (facts.capability, LEAST_CAPABILITY))
        return [f"needs compute capability {least}, but this device has {has}"]
    if facts.gpu is not None and WITHOUT_VLLM in facts.gpu.upper():
        return [f"does not run vLLM on a {facts.gpu}"]
    return []


def _against_unsloth(engine: str, vllm_mode: str, trust_remote_code: bool) -> list[Problem]:
    """Settings that cannot be combined with model.backend: unsloth."""
    found = []
    if engine == "transformers":
        found.append(
            Problem(
                "generation.engine",
                "transformers cannot be combined with model.backend: unsloth, which samples with "
                "vLLM; write auto, or model.backend: transformers",
            )
        )
    if vllm_mode == "server":
        found.append(
            Problem(
                "training.trl.vllm_mode",
                "server cannot be combined with model.backend: unsloth, which runs vLLM in its "
                "own process; omit it, or write model.backend: transformers",
            )
        )
    if trust_remote_code:
        found.append(
            Problem(
                "model.trust_remote_code",
                "true cannot be combined with model.backend: unsloth, which cannot sample such "
                "models with vLLM; write false, or model.backend: transformers",
            )
        )
    return found
