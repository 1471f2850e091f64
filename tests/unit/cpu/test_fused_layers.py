"""Fused layers of a decoding copy: the numbers of the layers whose place they take."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.cache_utils import Cache

from remote_trainer.cpu.fused_layers import FusedLayer
from remote_trainer.cpu.prepacked_linear import prepack_linears
from remote_trainer.cpu.sampling_copy import make_sampling_copy
from remote_trainer.inference.decoders import RepeatingDecoder, SharedDecoder
from remote_trainer.models.attention import use_shared_attention

KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": None, "head_dim": 12},
    "qwen2": {},
    "qwen3": {"head_dim": 12},
    "mistral with a window": {"sliding_window": 4},
}
KNOWN = [kind for kind in KINDS if "window" not in kind]
PROMPTS = [(5, 6, 7, 8), (9, 10), (5, 6, 7, 8)]


def adapted(kind: str, targets: list[str]) -> Any:
    """A tiny model whose biases, norms and adapter are not what they start as."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind.split()[0]](
        vocab_size=50, hidden_size=32, intermediate_size=44, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, **KINDS[kind],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    use_shared_attention(model)
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    model.requires_grad_(False)
    prepack_linears(model)
    return get_peft_model(
        model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize("targets", [["q_proj", "v_proj", "o_proj", "up_proj"], ["down_proj"]])
@pytest.mark.parametrize("kind", KNOWN)
def test_fused_layers_answer_as_transformers_own(kind: str, targets: list[str]) -> None:
    model = adapted(kind, targets)
    twin = make_sampling_copy(model, torch.float32)
    assert [type(layer) for layer in twin.model.layers] == [FusedLayer, FusedLayer]
    ids = torch.randint(0, 50, (3, 9))
    assert torch.allclose(twin(ids).logits, model(ids).logits, atol=1e-5)
    for decoder in (SharedDecoder(twin, 0, 4), RepeatingDecoder(twin, 0)):
        texts = [list(prompt) for prompt in PROMPTS]
        logits = decoder.begin(PROMPTS)
        for _ in range(3):
            for text, row in zip(texts, logits, strict=True):
                assert torch.allclose(row, model(torch.tensor([text])).logits[0, -1], atol=1e-5)
                text.append(int(row.argmax()))
            logits = decoder.step(torch.tensor([text[-1] for text in texts]))


@torch.no_grad()
def test_what_is_not_known_stays_transformers_own() -> None:
    model = adapted("mistral with a window", ["q_proj", "up_proj"])
    twin = make_sampling_copy(model, torch.float32)
    assert not any(isinstance(m, FusedLayer) for m in twin.modules())
    ids = torch.randint(0, 50, (2, 9))
    assert torch.allclose(twin(ids).logits, model(ids).logits, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_the_cache_is_filled_under_every_name_that_transformers_has_for_it(name: str) -> None:
    """A tiny model whose backbone hands the cache on under another name than its transformers."""
    model = adapted("llama", ["q_proj"])
    twin = make_sampling_copy(model, torch.float32)

    def renamed(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        caches = [key for key, value in kwargs.items() if isinstance(value, Cache)]
        return args, {name if key in caches else key: value for key, value in kwargs.items()}

    for layer in twin.model.layers:
        layer.register_forward_pre_hook(renamed, with_kwargs=True)
    decoder = RepeatingDecoder(twin, 0)
    decoder.begin([(5, 6, 7, 8)])
    found = decoder.step(torch.tensor([9]))
    expected = model(torch.tensor([[5, 6, 7, 8, 9]])).logits[0, -1]
    assert torch.allclose(found[0], expected, atol=1e-5)
