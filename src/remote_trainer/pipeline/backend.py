"""The engine for a config: its choice and its loading."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.engines.facts import find_facts
from remote_trainer.engines.protocol import Backend
from remote_trainer.engines.selection import EngineChoice, Facts, choose_engine
from remote_trainer.engines.versions import version_problems
from remote_trainer.errors import Problem, UserInputError
from remote_trainer.packages import OURSELVES, our_packages, read_installed
from remote_trainer.records import AdapterSettings, LoadSettings
from remote_trainer.trainer.trl_settings import checkpoints_gradients

LEAST_FOR_BFLOAT16 = (8, 0)


def engine_of(config: RunConfig) -> EngineChoice:
    """The engine for a config on this machine.

    Raises UserInputError that lists what the config requires and this machine lacks, and settings
    that cannot be combined.
    """
    model, facts = config.model, find_facts()
    try:
        choice = choose_engine(
            facts,
            backend=model.backend,
            engine=config.generation.engine,
            load_in_4bit=model.load_in_4bit,
            vllm_mode=config.vllm_mode,
            trust_remote_code=model.trust_remote_code,
        )
    except UserInputError as refused:
        more = _unsloth_problems(config, facts) if model.backend == "unsloth" else []
        raise UserInputError([*refused.problems, *more]) from None
    problems = _unsloth_problems(config, facts) if choice.backend == "unsloth" else []
    if choice.generation == "vllm" and config.generation.dtype != "auto":
        problems.append(
            Problem(
                "generation.dtype",
                f"{config.generation.dtype} has no effect, because vLLM samples; write auto",
            )
        )
    if choice.generation == "vllm" and config.training.deterministic:
        problems.append(
            Problem(
                "training.deterministic",
                "true covers torch's kernels, and not those of Unsloth and vLLM; write false, or "
                "model.backend: transformers and generation.engine: transformers",
            )
        )
    if problems:
        raise UserInputError(problems)
    return choice


def _unsloth_problems(config: RunConfig, facts: Facts) -> list[Problem]:
    """Settings that Unsloth would ignore, change or refuse after loading the model."""
    found = []
    dtype = config.model.dtype
    if dtype == "float32":
        found.append(
            Problem(
                "model.dtype",
                "float32 does not work with Unsloth's vLLM, which supports only 16 bits; write "
                "auto, or model.backend: transformers",
            )
        )
    elif dtype != "float16" and facts.capability and facts.capability < LEAST_FOR_BFLOAT16:
        has = ".".join(map(str, facts.capability))
        found.append(
            Problem(
                "model.dtype",
                f"{dtype} means bfloat16 here, but Unsloth replaces it by float16 on a device of "
                f"compute capability {has}; write float16",
            )
        )
    if config.training.loss_type != "dapo" and config.training.group_filter.min_std > 0:
        found.append(
            Problem(
                "training.loss_type",
                f"with Unsloth {config.training.loss_type} includes completions of filtered "
                "groups in its divisor; write dapo, or training.group_filter.min_std: 0",
            )
        )
    return found


def untested_versions(choice: EngineChoice) -> list[Problem]:
    """Packages of the chosen GPU engine whose versions were not tested; none where it is not
    known what is declared, because remote-trainer was not installed."""
    if choice.generation != "vllm":  # it costs reading the metadata of every package
        return []
    installed = read_installed()
    return version_problems(choice, our_packages(installed)) if OURSELVES in installed else []


def with_auto_resolved(config: RunConfig, choice: EngineChoice) -> RunConfig:
    """The config with ``auto`` resolved, so that it means the same on another machine."""
    model = config.model.model_copy(
        update={"backend": choice.backend, "load_in_4bit": choice.in_4bit}
    )
    generation = config.generation.model_copy(update={"engine": choice.generation})
    return config.model_copy(update={"model": model, "generation": generation})


def describe_engine(engine: Mapping[str, Any]) -> str:
    """One sentence for the user: the engine of a run."""
    bits = "4-bit" if engine["in_4bit"] else engine["dtype"]
    standby = ", sleeping during updates" if engine["standby"] else ""
    return (
        f"{engine['engine']} trains on {engine['device']}, {bits} weights; "
        f"{engine['sampling']} samples{standby}"
    )


def load_trainable(model_folder: Path, config: RunConfig, choice: EngineChoice) -> Backend:
    """The chosen engine for training, with the model loaded."""
    if choice.backend == "transformers":
        return _load_transformers(model_folder, config, choice.in_4bit)
    # Import only the chosen engine: the other one may not be installed.
    from remote_trainer.engines.unsloth_backend import UnslothBackend

    return UnslothBackend.load(model_folder, _load_settings(config, choice.in_4bit))


def load_backend(model_folder: Path, config: RunConfig) -> Backend:
    """The engine for everything except training: transformers, whatever trained the run."""
    choice = choose_engine(
        find_facts(),
        backend="transformers",
        engine="transformers",
        load_in_4bit=config.model.load_in_4bit,
    )
    return _load_transformers(model_folder, config, choice.in_4bit)


def _load_transformers(model_folder: Path, config: RunConfig, in_4bit: bool) -> Backend:
    # It imports torch, which `check` does not need, and PEFT, which Unsloth must patch first.
    from remote_trainer.engines.transformers_backend import TransformersBackend

    return TransformersBackend.load(model_folder, _load_settings(config, in_4bit))


def _load_settings(config: RunConfig, in_4bit: bool) -> LoadSettings:
    return LoadSettings(
        dtype=config.model.dtype,
        load_in_4bit=in_4bit,
        trust_remote_code=config.model.trust_remote_code,
        max_tokens_per_batch=config.scoring.max_tokens_per_batch,
        chat_template_kwargs=config.data.chat_template_kwargs if config.data else None,
        max_seq_length=config.model.max_seq_length,
        lora_rank=config.lora.r,
        gradient_checkpointing=checkpoints_gradients(config, find_facts().cuda),
        seed=config.training.seed,
        disable_dropout=config.training.disable_dropout,
    )


def adapter_settings(config: RunConfig) -> AdapterSettings:
    """The adapter settings of the config."""
    return AdapterSettings(
        r=config.lora.r,
        alpha=config.lora.alpha,
        dropout=config.lora.dropout,
        target_modules=config.lora.target_modules,
        seed=config.training.seed,
    )
