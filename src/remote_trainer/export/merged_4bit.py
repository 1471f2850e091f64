"""The merged model quantised to 4 bits by bitsandbytes (NF4, double quantisation)."""

from pathlib import Path

import torch

from remote_trainer.models.quantization import nf4


def quantize(merged_16bit: Path, target: Path) -> None:
    """Quantise the 16-bit merge into ``target``, which must exist.

    A second lossy step after rounding to 16 bits; not a source for other formats.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        merged_16bit,
        quantization_config=nf4(torch.bfloat16),
        dtype=torch.bfloat16,
        use_safetensors=True,
        local_files_only=True,
    )
    model.save_pretrained(target, safe_serialization=True)
    AutoTokenizer.from_pretrained(merged_16bit, local_files_only=True).save_pretrained(target)
