"""The base under an adapter that TRL merges at every rollout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.engines import base_weights
from remote_trainer.engines.base_weights import BaseWeights, checksum
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import EngineError
from remote_trainer.records import LoadSettings


@pytest.fixture
def adapted(llama_folder: Path) -> Any:
    """A bfloat16 model with an adapter away from zero."""
    from peft import LoraConfig, get_peft_model

    backend = TransformersBackend.load(llama_folder, LoadSettings(dtype="bfloat16"))
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    return get_peft_model(backend.model, config)


def weights_of(model: Any) -> list[torch.Tensor]:
    return [p for n, p in model.named_parameters() if "q_proj.base_layer.weight" in n]


def test_merging_rounds_without_it(adapted: Any) -> None:
    first, *_ = weights_of(adapted)
    before = first.detach().clone()
    base = BaseWeights(adapted)
    for _ in range(2):
        with base.unchanged():
            adapted.merge_adapter()
            assert not torch.equal(first, before)
            adapted.unmerge_adapter()
        assert torch.equal(first, before)
    adapted.merge_adapter()
    adapted.unmerge_adapter()
    assert not torch.equal(first, before)


class Copies(torch.overrides.TorchFunctionMode):
    """Counts tensors that are copied to ordinary memory, and copied back from there."""

    def __init__(self) -> None:
        super().__init__()
        self.out = self.back = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.out += func is torch.Tensor.to and kwargs.get("copy", False)
        self.back += func is torch.Tensor.copy_
        return func(*args, **kwargs)


def test_the_base_is_copied_once_and_only_what_changed_comes_back(adapted: Any) -> None:
    base, weights = BaseWeights(adapted), weights_of(adapted)
    before = [weight.detach().clone() for weight in weights]
    with Copies() as copies:
        for _ in range(3):
            with base.unchanged():
                weights[0].data.view(torch.int16).flatten()[5] += 1
        with base.unchanged():
            pass
    assert (copies.out, copies.back) == (len(weights), 3)
    assert all(torch.equal(now, then) for now, then in zip(weights, before, strict=True))


def test_an_error_in_between_puts_the_base_back_too(adapted: Any) -> None:
    first, *_ = weights_of(adapted)
    before = first.detach().clone()

    def fail_while_merged() -> None:
        with BaseWeights(adapted).unchanged():
            adapted.merge_adapter()
            raise ValueError("while merged")

    with pytest.raises(ValueError, match="while merged"):
        fail_while_merged()
    assert torch.equal(first, before)


def test_a_base_that_changed_meanwhile_is_refused(adapted: Any) -> None:
    base, (first, *_) = BaseWeights(adapted), weights_of(adapted)
    with base.unchanged():
        pass
    first.data[0, 0] += 1
    with pytest.raises(EngineError, match="1 weights of the base model changed between two"):
        base.unchanged().__enter__()


def changes() -> Iterator[tuple[str, torch.Tensor]]:
    """Weights that differ by little from the first one."""
    plain = torch.arange(-12.0, 12.0).view(4, 6)
    yield "same", plain
    for name, (a, b) in {"columns": ((0, 1), (0, 4)), "rows": ((0, 1), (3, 1))}.items():
        swapped = plain.clone()
        swapped[a], swapped[b] = plain[b], plain[a]
        yield name, swapped
    yield "last bit", torch.nextafter(plain, plain + 1).where(plain == 3, plain)
    yield "zero's sign", plain.where(plain != 0, -0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checksum_sees_single_bits_and_places(dtype: torch.dtype) -> None:
    found = {name: int(checksum(weight.to(dtype))) for name, weight in changes()}
    assert found["same"] == int(checksum(torch.arange(-12.0, 12.0).view(4, 6).to(dtype)))
    others = set(found) - {"same"} - ({"last bit"} if dtype == torch.bfloat16 else set())
    assert len({found[name] for name in others} | {found["same"]}) == len(others) + 1


def test_a_checksum_lies_where_the_weight_lies() -> None:
    weight = torch.zeros(3, 4, device="meta", dtype=torch.float16)
    base_weights._multipliers.cache_clear()
    assert checksum(weight).device.type == "meta"
