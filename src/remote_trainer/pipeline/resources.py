"""Estimate of memory and disk space for ``check``, without torch."""

import os
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.engines.facts import find_facts, offers_unsloth
from remote_trainer.engines.unsloth_import import MEMORY_SHARE
from remote_trainer.errors import UserInputError
from remote_trainer.models.hardware import card_memory, driver_gpus
from remote_trainer.models.layer_names import resolve
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.pipeline.backend import engine_of
from remote_trainer.pipeline.check import Plan
from remote_trainer.pipeline.initial_adapter import with_start
from remote_trainer.planning.card import Card, misfits, tight, vllm_share
from remote_trainer.planning.resources import (
    adapter_parameters,
    cpu_memory,
    disk_by_export,
    gpu_memory,
)
from remote_trainer.run_dir import RunDir
from remote_trainer.supervision.disk import checkpoint_bytes, free_bytes

_TIMEOUT_S = 2.0  # check must be quick; a GPU that does not answer counts as none


def resource_plan(config: RunConfig, plan: Plan) -> dict[str, Any] | None:
    """Bytes by part; None if the model is not on this machine yet.

    ``gpu`` is the estimate for a GPU, whether or not there is one; None for models without
    estimate.
    """
    if plan.base is None:
        return None
    facts = ModelFacts(plan.base)
    config = with_start(config, plan.start)
    targets = plan.targets or resolve(config.lora.requested, facts.layers)
    gpus = driver_gpus(_TIMEOUT_S)
    return {
        "gpu_here": gpus[0].name if gpus else None,
        "gpu": gpu_memory(
            config,
            facts,
            targets,
            in_4bit=config.model.load_in_4bit is not False,
            engine=engine_on_gpu(config),
        ),
        "cpu": cpu_memory(facts),
        "disk": disk_by_export(config, facts, targets),
    }


def require_room(config: RunConfig, plan: Plan, patience_s: float = _TIMEOUT_S) -> list[str]:
    """Warnings where the estimate is over what is free on the GPU that would train.

    Raises UserInputError for what cannot fit. Nothing is said where no GPU would train, or where
    its memory or the sizes of the model are not known.
    """
    found = card_memory(patience_s)
    if found is None or plan.base is None or not find_facts().cuda:
        return []
    facts, choice = ModelFacts(plan.base), engine_of(config)
    config = with_start(config, plan.start)
    targets = plan.targets or resolve(config.lora.requested, facts.layers)
    beside = choice.generation == "vllm" and config.vllm_mode == "colocate"
    engine = "unsloth" if choice.backend == "unsloth" else "vllm" if beside else "transformers"
    memory = gpu_memory(config, facts, targets, in_4bit=choice.in_4bit, engine=engine)
    if memory is None:
        return []
    card = Card(*found)
    share = vllm_share(engine, config.training.trl, card, os.environ, MEMORY_SHARE)
    if problems := misfits(memory, card, share):
        raise UserInputError(problems)
    warning = tight(memory, card)
    return [warning] if warning else []


def require_disk(config: RunConfig, plan: Plan) -> None:
    """Raises UserInputError if the checkpoints do not fit on the disk of ``output_dir``; exports
    are a matter of `check`."""
    if plan.base is None:
        return
    facts, folder = ModelFacts(plan.base), RunDir(config.output_dir)
    config = with_start(config, plan.start)
    targets = plan.targets or resolve(config.lora.requested, facts.layers)
    needed = checkpoint_bytes(adapter_parameters(facts, targets, config.lora.r))
    needed *= config.training.keep_checkpoints + 1  # the newest is written before one is deleted
    held = sum(file.stat().st_size for file in folder.checkpoints.rglob("*") if file.is_file())
    free = free_bytes(folder.root)
    if free < needed - held:
        raise UserInputError.at(
            "output_dir",
            f"checkpoints need up to {needed - held} bytes on the disk of {folder}, but only "
            f"{free} are free; free disk space, lower training.keep_checkpoints, or write another "
            "folder",
        )


def engine_on_gpu(config: RunConfig) -> str:
    """The engine that would train on a GPU, by its name in the estimate."""
    backend = config.model.backend
    if backend == "unsloth" or (backend == "auto" and offers_unsloth()):
        return "unsloth"
    # A vLLM server uses its own GPU.
    here = config.generation.engine == "vllm" and config.vllm_mode == "colocate"
    return "vllm" if here else "transformers"
