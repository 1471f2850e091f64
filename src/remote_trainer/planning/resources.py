"""Memory by part and disk space by export, from config.json and file headers of a model."""

from dataclasses import replace
from math import prod
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.export_formats import EXPORT_FORMATS
from remote_trainer.models.layer_names import SEVEN, Targets, matching
from remote_trainer.models.model_facts import ModelFacts
from remote_trainer.planning.memory import (
    ADAPTER_BYTES,
    CONTEXT_BYTES,
    Load,
    Plan,
    Shape,
    plan_transformers,
    plan_unsloth,
    plan_vllm,
)

FLOAT32_BYTES = 4
_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures that `Shape` describes."""


def shape_of(facts: ModelFacts) -> Shape | None:
    """Sizes of a supported decoder; None for other models."""
    config, layers = facts.config, facts.layers
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = [config.get(key) for key in keys]
    optional = [config.get(key) or 1 for key in ("num_key_value_heads", "head_dim")]
    supported = config.get("model_type") in _MODEL_TYPES and facts.vocabulary is not None
    if not supported or not all(isinstance(n, int) and n > 0 for n in (*sizes, *optional)):
        return None
    if not all(matching(name, layers.linear) for name in SEVEN):
        return None
    hidden, blocks, heads, intermediate = (int(size or 0) for size in sizes)
    return Shape(
        hidden=hidden,
        layers=blocks,
        heads=heads,
        key_heads=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or hidden // heads,
        intermediate=intermediate,
        vocabulary=facts.vocabulary or 0,
        tied=facts.is_tied,
        query_bias=any(name.endswith("q_proj.bias") for name in layers.tensors),
    )


def adapter_parameters(facts: ModelFacts, targets: Targets, r: int) -> int:
    """LoRA (arXiv 2106.09685) on these layers: r x (inputs + outputs) of each."""
    layers = facts.layers
    paths = {path for name in targets.counts for path in matching(name, layers.linear)}
    shapes = (layers.tensors.get(f"{path}.weight") for path in paths)
    return r * sum(sum(shape.shape) for shape in shapes if shape is not None)


def gpu_memory(
    config: RunConfig, facts: ModelFacts, targets: Targets, *, in_4bit: bool, engine: str
) -> dict[str, Any] | None:
    """Bytes on a GPU by part, for ``engine`` transformers, vllm (which samples) or unsloth.

    None for models without an estimate.
    """
    shape = shape_of(facts)
    if shape is None:
        return None
    training = config.training
    load = Load(
        prompt_tokens=training.max_prompt_length,
        completion_tokens=training.max_completion_length,
        completions=training.num_generations,
        micro_batch=training.per_device_train_batch_size,
        micro_steps=training.gradient_accumulation_steps,
        r=config.lora.r,
        batch_tokens=config.scoring.max_tokens_per_batch,
    )
    plans = {
        "transformers": lambda: plan_transformers(shape, load, in_4bit),
        "vllm": lambda: plan_vllm(shape, load),
        "unsloth": lambda: plan_unsloth(shape, load, in_4bit),
    }
    parameters = adapter_parameters(facts, targets, config.lora.r)
    plan: Plan = replace(plans[engine](), adapter=float(parameters * ADAPTER_BYTES))
    return {
        "engine": engine,
        "in_4bit": in_4bit and engine != "vllm",
        "weights": round(plan.weights),
        "adapter": round(plan.adapter),
        "sampling": round(plan.sampling),
        "update": round(plan.update),
        "context": round(CONTEXT_BYTES),
        "total": round(plan.total),
    }


def cpu_memory(facts: ModelFacts) -> dict[str, int]:
    """Bytes on a CPU: float32 weights, and both prepacked copies of the linear layers.

    There is no estimate for sampling and updates on a CPU.
    """
    tensors = facts.layers.tensors
    linear = sum(
        prod(tensors[f"{path}.weight"].shape)
        for path in facts.layers.linear
        if f"{path}.weight" in tensors
    )
    return {
        "weights": FLOAT32_BYTES * sum(prod(tensor.shape) for tensor in tensors.values()),
        "ordered_copies": 2 * FLOAT32_BYTES * linear,
    }


def disk_by_export(config: RunConfig, facts: ModelFacts, targets: Targets) -> dict[str, int]:
    """Maximum bytes on disk while each format is written."""
    files = sum(file.stat().st_size for file in facts.folder.glob("*.safetensors"))
    adapter = FLOAT32_BYTES * adapter_parameters(facts, targets, config.lora.r)
    factors = {form: EXPORT_FORMATS[form].disk_factor for form in config.export.formats}
    return {form: factor * files + adapter for form, factor in factors.items()}
