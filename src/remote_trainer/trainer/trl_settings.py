"""Our settings as TRL's. Does not import TRL, so that ``check`` can show them."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.errors import Problem

TRL_SAMPLING = {
    "use_transformers_continuous_batching",
    "min_p",
    "repetition_penalty",
    "cache_implementation",
}
"""Sampling fields that only TRL's own sampling supports."""

NEWER_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Fields renamed in transformers 5.24; the old name warns and is removed in 6."""


def batch_settings(config: RunConfig) -> dict[str, Any]:
    """GRPOConfig's fields for batches and updates, which do not depend on the device."""
    training = config.training
    return {
        # TRL counts completions where we count prompts.
        "per_device_train_batch_size": training.per_device_train_batch_size
        * training.num_generations,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "num_generations": training.num_generations,
        "num_iterations": training.num_iterations,
        "max_steps": training.max_steps or -1,
        "num_train_epochs": training.num_train_epochs or 1.0,
    }


def trl_settings(config: RunConfig, *, cuda: bool, vllm: bool = False) -> dict[str, Any]:
    """Every GRPOConfig field that we set; the user's ``training.trl`` takes precedence."""
    training, generation = config.training, config.generation
    return {
        **batch_settings(config),
        "max_completion_length": training.max_completion_length,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": _scheduler(config),
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "beta": config.kl_weight,
        "loss_type": training.loss_type,
        "scale_rewards": training.scale_rewards,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "generation_kwargs": {"min_tokens" if vllm else "min_new_tokens": generation.min_new_tokens}
        if generation.min_new_tokens
        else None,
        "gradient_checkpointing": checkpoints_gradients(config, cuda),
        # bf16=True is TRL's default and means autocast, which raises without a GPU.
        "use_cpu": not cuda,
        "bf16": cuda and config.model.dtype in ("auto", "bfloat16"),
        "optim": "adamw_torch",
        "logging_steps": training.logging_steps,
        # The running mean would hide a NaN; our own check raises instead.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "seed": training.seed,
        # The engine disables the base model's dropout, attention included, but not the adapter's.
        "disable_dropout": False,
        "report_to": "none",
        "disable_tqdm": True,
        **(vllm_settings(config) if vllm else {}),
        **training.trl,
    }


def _scheduler(config: RunConfig) -> str:
    """transformers' ``constant`` schedule ignores warm-up without a message."""
    training = config.training
    warms_up = training.warmup_steps or training.trl.get("warmup_ratio")
    if warms_up and training.lr_scheduler_type == "constant":
        return "constant_with_warmup"
    return training.lr_scheduler_type


def checkpoints_gradients(config: RunConfig, cuda: bool) -> bool:
    """Whether to recompute activations to save memory."""
    setting = config.training.gradient_checkpointing
    return cuda if setting == "auto" else setting


def vllm_settings(config: RunConfig) -> dict[str, Any]:
    """TRL's vLLM fields; ``training.trl`` may override each of them."""
    colocated = config.vllm_mode == "colocate"
    return {
        "use_vllm": True,
        "vllm_mode": config.vllm_mode,
        # vLLM and training take turns with the memory of one GPU.
        "vllm_enable_sleep_mode": colocated,
        "vllm_max_model_length": config.model.max_seq_length,
        # vLLM's kernels differ from the update's, so the loss uses importance weights. They are
        # truncated per token: a mask of whole completions would exclude long ones first.
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": 2.0,
    }


SAME_NAME = (
    "gradient_accumulation_steps",
    "num_generations",
    "max_completion_length",
    "num_iterations",
    "max_steps",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "beta",
    "loss_type",
    "scale_rewards",
    "gradient_checkpointing",
    "disable_dropout",
    "logging_steps",
    "save_steps",
    "seed",
)
"""Fields that are also keys of ``training``."""
OTHER_KEY = {
    "per_device_train_batch_size": "training.per_device_train_batch_size, which counts prompts "
    "where TRL counts completions",
    "temperature": "generation.temperature",
    "top_p": "generation.top_p",
    "top_k": "generation.top_k",
    "generation_kwargs": "generation.min_new_tokens; the program's own sampling has no other "
    "generation arguments",
    "bf16": "model.dtype, which it follows",
    "report_to": "tracking.report_to; that tracker has a process of its own",
    "use_vllm": "generation.engine: vllm (or transformers)",
}
"""Field -> the config key to set instead, and its differences."""
FIXED = {
    "use_cpu": "it is true without a GPU; to hide a GPU, set CUDA_VISIBLE_DEVICES=''",
    "optim": "it is adamw_torch, because checkpoints are implemented and tested for its state",
    "logging_nan_inf_filter": "it is false, because the filter would hide a NaN loss in the log; "
    "training stops with an error instead",
    "save_strategy": "it is steps, because runs resume from checkpoints of updates; "
    "training.save_steps sets the interval",
    "disable_tqdm": "the program shows its own progress; train --quiet hides it",
}
"""Field -> why the program sets it and no config key changes it."""


def why_refused(name: str) -> str | None:
    """Why ``training.trl`` may not set a field of GRPOConfig; None if it may."""
    older = next((old for old, new in NEWER_NAMES.items() if new == name), name)
    if older in SAME_NAME:
        return f"has a key of its own in the config; set training.{older} instead"
    if older in OTHER_KEY:
        return f"write {OTHER_KEY[older]}"
    return f"is set by the program: {FIXED[older]}" if older in FIXED else None


def check_trl_settings(config: RunConfig) -> list[Problem]:
    """Fields of ``training.trl`` that GRPOConfig does not have, or that are set elsewhere."""
    known = grpo_config_fields()
    problems = []
    for name in config.training.trl:
        where = f"training.trl.{name}"
        refused = why_refused(name)
        if refused is not None:
            problems.append(Problem(where, refused))
        elif known is not None and name not in known:
            problems.append(Problem(where, "the installed TRL's GRPOConfig has no such field"))
    return problems


def grpo_config_fields() -> set[str] | None:
    """Field names of the installed GRPOConfig, read from source: importing it would load torch."""
    sources = (
        ("trl", "trainer/grpo_config.py"),
        ("trl", "trainer/base_config.py"),
        ("transformers", "training_args.py"),
    )
    names: set[str] = set()
    for package, file in sources:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return None
        source = Path(spec.origin).parent / file
        if source.exists():
            names |= _annotated_names(source)
    return names


def _annotated_names(source: Path) -> set[str]:
    classes = (
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    return {
        line.target.id
        for node in classes
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
