"""Which engine a config gets on a machine: a decision from facts, made without loading anything."""

from dataclasses import dataclass
from typing import Literal

from remote_trainer.errors import Problem, UserInputError

INSTALL_UNSLOTH = "python -m pip install 'remote-trainer[unsloth]'"
INSTALL_TRAIN = "python -m pip install 'remote-trainer[train]'"
INSTALL_VLLM = "python -m pip install 'vllm>=0.30,<0.31'"
INSTALL_PLUGIN = "python -m pip install 'vllm-bnb-plugin>=0.0.3'"

# Below this Unsloth 2026.10 and vLLM sample without vLLM, and only a printed line says so.
LEAST_CAPABILITY = (7, 0)
# DGX Spark: Unsloth 2026.10 switches vLLM off there by the device's name.
WITHOUT_VLLM = "GB10"


@dataclass(frozen=True)
class Facts:
    """What the choice depends on: the first GPU and the packages that are installed."""

    cuda: bool = False
    """Whether a CUDA device can be used."""
    capability: tuple[int, int] | None = None
    """Compute capability of the device; None where it is not known, which hinders nothing."""
    gpu: str | None = None
    """Name of the device."""
    bitsandbytes: bool = False
    unsloth: bool = False
    vllm: bool = False
    bnb_plugin: bool = False
    """vllm-bnb-plugin, without which vLLM 0.28 and later load no 4-bit weights."""


@dataclass(frozen=True)
class EngineChoice:
    """What trains, what samples, and why."""

    backend: Literal["transformers", "unsloth"]
    generation: Literal["transformers", "vllm"]
    in_4bit: bool
    reasons: tuple[str, ...] = ()
    """A sentence for each decision that ``auto`` left open."""


def choose_engine(
    facts: Facts,
    *,
    backend: Literal["auto", "transformers", "unsloth"] = "auto",
    engine: Literal["auto", "transformers", "vllm"] = "auto",
    load_in_4bit: bool | Literal["auto"] = "auto",
    vllm_mode: Literal["colocate", "server"] = "colocate",
    trust_remote_code: bool = False,
) -> EngineChoice:
    """Decide by what a config says: model.backend, generation.engine, model.load_in_4bit,
    training.trl.vllm_mode, model.trust_remote_code.

    Unsloth always samples with vLLM in its own process. Raises UserInputError that lists
    everything the config demands and this machine or environment does not have.
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
        why = f"transformers trains: {', '.join(problem.where for problem in against)} asks for it"
    elif lacks:
        # Without a device no package would help.
        why = f"transformers trains: Unsloth {'; it '.join(lacks if facts.cuda else lacks[:1])}"
    else:
        why = "Unsloth trains and vLLM samples: a CUDA device and the extra unsloth are here"
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
                "true does not go with generation.engine: vllm on the transformers engine, which "
                "sends vLLM the weights after each update and cannot send 4-bit ones (trl#4973); "
                "write false, or model.backend: unsloth",
            )
        )
    if problems:
        raise UserInputError(problems)
    if load_in_4bit == "auto":
        reasons = (*reasons, "16-bit weights: 4-bit ones cannot be sent to vLLM after an update")
    return EngineChoice("transformers", "vllm", False, reasons)


def _bits(facts: Facts, load_in_4bit: bool | Literal["auto"]) -> tuple[bool, tuple[str, ...]]:
    """Whether the transformers engine loads 4-bit weights, and why if that was left open."""
    if load_in_4bit is True and not facts.bitsandbytes:
        raise UserInputError.at(
            "model.load_in_4bit", f"true needs bitsandbytes, which is not here: {INSTALL_TRAIN}"
        )
    if load_in_4bit != "auto":
        return load_in_4bit, ()
    if facts.cuda and not facts.bitsandbytes:
        return False, (f"16-bit weights: bitsandbytes is not here: {INSTALL_TRAIN}",)
    return facts.cuda, ()


def _lacks_for_unsloth(facts: Facts, in_4bit: bool) -> list[str]:
    """What stands between this machine and Unsloth with vLLM, each with the way out."""
    lacks = [] if facts.cuda else ["needs a CUDA device, and there is none that can be used"]
    lacks += _too_old(facts)
    packages = {"unsloth": facts.unsloth, "vllm": facts.vllm}
    missing = [name for name, there in packages.items() if not there]
    if missing:
        lacks.append(f"needs the package {' and '.join(missing)}: {INSTALL_UNSLOTH}")
    elif in_4bit and not facts.bnb_plugin:
        lacks.append(f"needs vllm-bnb-plugin for 4-bit weights: {INSTALL_PLUGIN}")
    return lacks


def _lacks_for_vllm(facts: Facts) -> list[str]:
    """What TRL needs to sample with vLLM, in this process or on a server."""
    lacks = [] if facts.cuda else ["needs a CUDA device, and there is none that can be used"]
    lacks += _too_old(facts)
    if not facts.vllm:
        lacks.append(f"needs the package vllm: {INSTALL_VLLM}")
    return lacks


def _too_old(facts: Facts) -> list[str]:
    """Devices on which Unsloth would print a line and sample without vLLM."""
    if not facts.cuda:
        return []
    if facts.capability is not None and facts.capability < LEAST_CAPABILITY:
        has, least = (".".join(map(str, each)) for each in (facts.capability, LEAST_CAPABILITY))
        return [f"needs compute capability {least}, and this device has {has}"]
    if facts.gpu is not None and WITHOUT_VLLM in facts.gpu.upper():
        return [f"does not run vLLM on a {facts.gpu}"]
    return []


def _against_unsloth(engine: str, vllm_mode: str, trust_remote_code: bool) -> list[Problem]:
    """What cannot be said together with model.backend: unsloth."""
    found = []
    if engine == "transformers":
        found.append(
            Problem(
                "generation.engine",
                "transformers does not go with model.backend: unsloth, which samples with vLLM; "
                "write auto, or model.backend: transformers",
            )
        )
    if vllm_mode == "server":
        found.append(
            Problem(
                "training.trl.vllm_mode",
                "server does not go with model.backend: unsloth, which keeps vLLM in its own "
                "process; leave it out, or write model.backend: transformers",
            )
        )
    if trust_remote_code:
        found.append(
            Problem(
                "model.trust_remote_code",
                "true does not go with model.backend: unsloth, which cannot sample such models "
                "with vLLM; write false, or model.backend: transformers",
            )
        )
    return found
