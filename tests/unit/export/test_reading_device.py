"""The process that reads an export again puts ids where the model is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from remote_trainer.export import verify_transformers

QUESTION = {"prompt_ids": [1, 5, 6], "completion_ids": [7, 8]}


def test_scores_are_of_ids_on_the_model_s_device(
    llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors of the device `meta` have no values, so nothing can be read from the result."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: seen.append(tensor))
    model = AutoModelForCausalLM.from_pretrained(llama_folder).to("meta")
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    verify_transformers.score(model, QUESTION)
    assert [tuple(tensor.shape) for tensor in seen] == [(1, 5), (2,), (2,)]
    assert {tensor.device.type for tensor in seen} == {"meta"}


def test_greedy_answers_are_to_ids_on_the_model_s_device() -> None:
    seen: dict[str, Any] = {}

    class OnMeta:
        device = torch.device("meta")

        def generate(self, input_ids: torch.Tensor, **more: Any) -> torch.Tensor:
            seen.update(more, input_ids=input_ids)
            return torch.tensor([[1, 5, 6, 7, 8]])

    answer = verify_transformers.greedy(OnMeta(), SimpleNamespace(pad_token_id=0), QUESTION)
    assert answer == [7, 8]
    assert {seen[name].device.type for name in ("input_ids", "attention_mask")} == {"meta"}
