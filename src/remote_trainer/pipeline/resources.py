"""Estimate of memory and disk space for ``check``, without torch."""

from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.engines.facts import offers_unsloth
from remote_trainer.models.hardware import driver_gpus
from remote_trainer.models.layer_names import resolve
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.pipeline.check import Plan
from remote_trainer.pipeline.initial_adapter import with_start
from remote_trainer.planning.resources import cpu_memory, disk_by_export, gpu_memory

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


def engine_on_gpu(config: RunConfig) -> str:
    """The engine that would train on a GPU, by its name in the estimate."""
    backend = config.model.backend
    if backend == "unsloth" or (backend == "auto" and offers_unsloth()):
        return "unsloth"
    # A vLLM server uses its own GPU.
    here = config.generation.engine == "vllm" and config.vllm_mode == "colocate"
    return "vllm" if here else "transformers"
