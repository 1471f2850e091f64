"""The merged model quantised to 4 bits by bitsandbytes (NF4, double quantisation)."""

from pathlib import Path
from typing import Any

import torch


def quantize(merged_16bit: Path, target: Path) -> None:
    """Quantise the 16-bit merge into ``target``, which must exist.

    A second lossy step after the rounding to 16 bits; no source for other formats.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        merged_16bit,
        quantization_config=nf4(),
        dtype=torch.bfloat16,
        use_safetensors=True,
        local_files_only=True,
    )
    model.save_pretrained(target, safe_serialization=True)
    AutoTokenizer.from_pretrained(merged_16bit, local_files_only=True).save_pretrained(target)


def nf4() -> Any:
    """How weights become 4 bits: QLoRA's NormalFloat with double quantisation (2305.14314)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
