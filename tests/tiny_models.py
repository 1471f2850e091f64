"""Tiny random models of families that differ where fast ways are known to fail."""

from pathlib import Path
from typing import Any

from conftest import make_tokenizer

_LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
}  # fmt: skip
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "llama that drops": ("llama", {**_LLAMA, "attention_dropout": 0.3}),
    "llama, tied": ("llama", {**_LLAMA, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", _GPT2),
    "opt": (
        "opt",
        {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 64, "word_embed_proj_dim": 32, "init_std": 0.2,
         "dropout": 0.3, "layerdrop": 0.5},
    ),
    "gemma2": ("gemma2", {**_LLAMA, "head_dim": 8, "sliding_window": 4}),
    "granite": ("granite", {**_LLAMA, "logits_scaling": 2.0}),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": 4}),
    "qwen3_moe": (
        "qwen3_moe",
        {**_LLAMA, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
         "moe_intermediate_size": 16},
    ),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}),
    "falcon": (
        "falcon",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "initializer_range": 0.2},
    ),
}  # fmt: skip


def make_family(family: str, folder: Path, tokenizer: Any = None, **changes: Any) -> Path:
    """A saved model of the family with a tokenizer that adds BOS; ``changes`` are its config's."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    tokenizer = tokenizer or make_tokenizer(adds_bos=True)
    kind, settings = FAMILIES[family]
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](**{"vocab_size": len(tokenizer), **ends, **settings, **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
