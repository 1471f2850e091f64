"""Our settings -> TRL's. Needs no TRL, so that ``check`` can show what training will be told."""

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
"""Fields that change how completions are sampled and that only TRL's own sampling knows."""

NEWER_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Fields that have another name from transformers 5.24 on; the old one warns, and is gone in 6."""


def trl_settings(config: RunConfig, *, cuda: bool, vllm: bool = False) -> dict[str, Any]:
    """Every GRPOConfig field that we set, the user's ``training.trl`` on top."""
    training, generation = config.training, config.generation
    return {
        # TRL counts completions where we count prompts.
        "per_device_train_batch_size": training.per_device_train_batch_size
        * training.num_generations,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "num_generations": training.num_generations,
        "max_completion_length": training.max_completion_length,
        "num_iterations": training.num_iterations,
        "max_steps": training.max_steps or -1,
        "num_train_epochs": training.num_train_epochs or 1.0,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": _scheduler(config),
        "warmup_steps": training.warmup_steps,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "beta": training.beta,
        "loss_type": training.loss_type,
        "scale_rewards": training.scale_rewards,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "generation_kwargs": {"min_tokens" if vllm else "min_new_tokens": generation.min_new_tokens}
        if generation.min_new_tokens
        else None,
        "gradient_checkpointing": checkpoints_gradients(config, cuda),
        # bf16=True is TRL's default and means autocast, which a CPU without a GPU refuses.
        "use_cpu": not cuda,
        "bf16": cuda and config.model.dtype in ("auto", "bfloat16"),
        "optim": "adamw_torch",
        "logging_steps": training.logging_steps,
        # The running mean would hide a NaN; our own check raises instead.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "seed": training.seed,
        # The engine does it, in attention too, and leaves the adapter its own.
        "disable_dropout": False,
        "report_to": "none",
        "disable_tqdm": True,
        **(vllm_settings(config) if vllm else {}),
        **training.trl,
    }


def _scheduler(config: RunConfig) -> str:
    """transformers' ``constant`` knows no warm-up, and says nothing of one that it is given."""
    training = config.training
    warms_up = training.warmup_steps or training.trl.get("warmup_ratio")
    if warms_up and training.lr_scheduler_type == "constant":
        return "constant_with_warmup"
    return training.lr_scheduler_type


def checkpoints_gradients(config: RunConfig, cuda: bool) -> bool:
    """Whether activations are computed again to save memory."""
    asked = config.training.gradient_checkpointing
    return cuda if asked == "auto" else asked


def vllm_settings(config: RunConfig) -> dict[str, Any]:
    """How TRL samples with vLLM; each of these may stand in ``training.trl``, too."""
    colocated = config.vllm_mode == "colocate"
    return {
        "use_vllm": True,
        "vllm_mode": config.vllm_mode,
        # vLLM and training take turns with the memory of one GPU.
        "vllm_enable_sleep_mode": colocated,
        "vllm_max_model_length": config.model.max_seq_length,
        # Its kernels are not those of the update, so tokens are weighed by how far the two are
        # apart. Cut per token: a mask by whole completions would leave out long ones first.
        "vllm_importance_sampling_correction": True,
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": 2.0,
    }


def check_trl_settings(config: RunConfig) -> list[Problem]:
    """Fields of ``training.trl`` that GRPOConfig does not have, or that have a key of their own."""
    ours = set(
        trl_settings(config.model_copy(update={"training": _without_trl(config)}), cuda=False)
    )
    ours |= {new for name, new in NEWER_NAMES.items() if name in ours}
    known = grpo_config_fields()
    problems = []
    for name in config.training.trl:
        where = f"training.trl.{name}"
        if name == "use_vllm":
            problems.append(Problem(where, "write generation.engine: vllm (or transformers)"))
        elif name in ours:
            problems.append(Problem(where, "has a key of its own in the config; set that instead"))
        elif known is not None and name not in known:
            problems.append(Problem(where, "the installed TRL's GRPOConfig has no such field"))
    return problems


def grpo_config_fields() -> set[str] | None:
    """Field names of the installed GRPOConfig, read from source: importing it would load torch."""
    places = (
        ("trl", "trainer/grpo_config.py"),
        ("trl", "trainer/base_config.py"),
        ("transformers", "training_args.py"),
    )
    names: set[str] = set()
    for package, file in places:
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


def _without_trl(config: RunConfig) -> Any:
    return config.training.model_copy(update={"trl": {}})
