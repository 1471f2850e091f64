"""Our attention is one more of transformers' implementations, and nobody else's model has it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import make_family
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.models.attention import why_not_shared
from remote_trainer.models.fast_path import SHARED_SDPA, attention_of
from remote_trainer.models.modes import causal_model
from remote_trainer.records import AdapterSettings, LoadSettings

ASKS_BY_NAME = ["llama", "llama that drops", "gpt2", "opt", "gemma2", "granite", "mistral"]
IDS = torch.tensor([[0, 0, 1, 20, 30, 40], [1, 60, 70, 80, 90, 100]])
MASK = (IDS > 0).long()


def test_transformers_own_stays_its_own() -> None:
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    assert ALL_MASK_ATTENTION_FUNCTIONS[SHARED_SDPA] is ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]


@pytest.mark.parametrize("family", [*ASKS_BY_NAME, "qwen3_moe", "bloom", "falcon"])
def test_numbers_with_and_without_padding_are_the_same_bits(family: str, tmp_path: Path) -> None:
    folder = make_family(family, tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    ours = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    backend = TransformersBackend(ours, tokenizer_of(folder))
    name = backend.model.config.get_text_config()._attn_implementation
    assert stock.config._attn_implementation != SHARED_SDPA
    assert attention_of(ours.config) == attention_of(stock.config)
    assert (name == SHARED_SDPA) is (family in [*ASKS_BY_NAME, "qwen3_moe"])
    for inputs in ({"input_ids": IDS, "attention_mask": MASK}, {"input_ids": IDS[1:]}):
        for training in (False, True):
            found = [logits(model.train(training), inputs) for model in (ours, stock)]
            assert torch.equal(found[0], found[1])


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def logits(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    torch.manual_seed(0)  # of dropout
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits
    return found


def test_saved_models_do_not_carry_the_name(tmp_path: Path) -> None:
    backend = TransformersBackend.load(make_family("llama", tmp_path / "m"), LoadSettings())
    assert why_not_shared(causal_model(backend.model)) is None
    backend.model.save_pretrained(tmp_path / "saved")
    backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj",), seed=0))
    backend.save_adapter(tmp_path / "adapter")
    backend.model.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in tmp_path.rglob("*.json"):
        assert "remote_trainer" not in file.read_text()
        assert "_attn_" not in json.dumps(json.loads(file.read_text()))


def test_a_choice_of_the_caller_is_kept(tmp_path: Path) -> None:
    folder = make_family("llama", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    TransformersBackend(model, tokenizer_of(folder))
    assert model.config._attn_implementation == "eager"
