"""The dequantised base weights of a QLoRA run, which its adapter was trained on."""

from pathlib import Path

import torch

from remote_trainer.export.tokenizer_files import write_tokenizer
from remote_trainer.models.quantization import keep_unpacked, nf4


def dequantize(base: Path, target: Path) -> None:
    """Quantise the base as in training, and write the dequantised weights to ``target``.

    In float32, so that nothing is rounded twice.
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
    plain = model.dequantize(dtype=torch.float32)
    plain.save_pretrained(target, safe_serialization=True)
    write_tokenizer(base, base, target)
