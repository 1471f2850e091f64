"""4-bit weights with bitsandbytes, and a workaround for training on them on a CPU."""

from typing import Any

import torch


def nf4(compute_dtype: torch.dtype) -> Any:
    """Quantisation settings: NF4 with double quantisation (QLoRA, arXiv 2305.14314)."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def is_in_4bit(causal: Any) -> bool:
    """Whether transformers loaded the weights of a model in 4 bits."""
    return bool(getattr(causal, "is_loaded_in_4bit", False))


def keep_unpacked(model: Any) -> None:
    """Keep 4-bit weights in the layout that gradients and merges require.

    On processors with AVX512-BF16, bitsandbytes 0.50 repacks them in the first pass without
    gradients and does not undo this for passes with gradients: layers with a bias then raise, the
    others pass no gradient on, and a merge is garbage.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
