"""Which layers of a loaded model get an adapter."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch.nn import Linear
from transformers.pytorch_utils import Conv1D

from remote_trainer.errors import UserInputError
from remote_trainer.models.layer_names import KEYWORDS, LayerNames, resolve
from remote_trainer.models.safetensors_header import TensorFacts
from remote_trainer.records import AdapterSettings

FIELD = "lora.target_modules"
# transformers stores the experts of a block as one weight under other names. For these names PEFT
# would adapt that weight, which neither the decoding copy nor the exports support.
_PARTS_OF_EXPERTS = {"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}


def lora_config(model: Any, settings: AdapterSettings) -> Any:
    """PEFT's config for the names that match linear layers of ``model``; others are ignored.

    Raises UserInputError if no name matches.
    """
    from peft import LoraConfig

    linear = dict(_linear_layers(model))
    names = [name for name in _requested(model, settings) if _matches(name, linear)]
    if _has_experts(model):
        names = [name for name in names if name.rpartition(".")[2] not in _PARTS_OF_EXPERTS]
    if not names:
        there = sorted({path.rpartition(".")[2] for path in linear})
        raise UserInputError.at(
            FIELD,
            f"found {list(settings.target_modules)}, but no linear layer of the loaded model has "
            f"such a name; write some of {', '.join(there)}",
        )
    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=names,
        # GPT-2's layers store their weights transposed.
        fan_in_fan_out=any(
            isinstance(layer, Conv1D) for path, layer in linear.items() if _ends(path, names)
        ),
        task_type="CAUSAL_LM",
    )


def _requested(model: Any, settings: AdapterSettings) -> tuple[str, ...]:
    """Names instead of a keyword, for callers that have not read the model's files."""
    (first, *others) = settings.target_modules
    if others or first not in KEYWORDS:
        return settings.target_modules
    tensors = {
        path: TensorFacts("F32", tuple(parameter.shape))
        for path, parameter in model.named_parameters()
    }
    return resolve(first, LayerNames(tensors)).names


def _linear_layers(model: Any) -> Iterator[tuple[str, Any]]:
    head = model.get_output_embeddings()
    for path, module in model.named_modules():
        if isinstance(module, Linear | Conv1D) and module is not head:
            yield path, module


def _matches(name: str, paths: Any) -> bool:
    return any(_ends(path, [name]) for path in paths)


def _ends(path: str, names: Sequence[str]) -> bool:
    """PEFT's rule for a list of names."""
    return any(path == name or path.endswith(f".{name}") for name in names)


def _has_experts(model: Any) -> bool:
    return any(
        parameter.dim() == 3 and path.split(".")[-2:-1] == ["experts"]
        for path, parameter in model.named_parameters()
    )
