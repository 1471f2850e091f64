"""The dequantised base weights of a QLoRA run, which its adapter was trained on."""

from pathlib import Path
from typing import Any

import torch

from remote_trainer.export.mapped_weights import mapped
from remote_trainer.export.tokenizer_files import write_tokenizer
from remote_trainer.models.quantization import keep_unpacked, nf4
from remote_trainer.run_dir import temporary_folder


def dequantize(base: Path, target: Path) -> None:
    """Quantise the base as in training, and write the dequantised weights to ``target``.

    In float32, so that nothing is rounded twice. Memory: the 4-bit model and one layer.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base,
        quantization_config=nf4(torch.float32),
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
    )
    keep_unpacked(model)
    with temporary_folder(target) as scratch:
        for name, layer in list(model.named_modules()):
            if hasattr(getattr(layer, "weight", None), "quant_state"):
                model.set_submodule(name, _plain(layer, scratch))
    # transformers' own way puts the whole model into memory before it comes to this.
    model.hf_quantizer.remove_quantization_config(model)
    model.save_pretrained(target, safe_serialization=True)
    write_tokenizer(base, base, target)


def _plain(layer: Any, scratch: Path) -> torch.nn.Linear:
    """A 4-bit layer as an ordinary one in float32, its weight on the disk."""
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    weight = dequantize_bnb_weight(layer.weight).float()
    plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight = torch.nn.Parameter(mapped([weight.view(-1)], weight.shape, scratch))
    plain.bias = layer.bias
    return plain
