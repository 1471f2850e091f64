"""LoRA with its product added in place: PEFT's numbers, and PEFT's layer where there is more."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear

from remote_trainer.cpu.prepacked_linear import prepack_linears
from remote_trainer.cpu.prepacked_lora import PackedLoraLinear, prepack_adapters
from remote_trainer.records import AdapterSettings


class Two(torch.nn.Module):
    """Two layers, one with a bias; their sizes are odd."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.first = torch.nn.Linear(11, 7, bias=bias)
        self.second = torch.nn.Linear(7, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., 11) -> (..., 5)."""
        out: torch.Tensor = self.second(self.first(x).sin())
        return out


def pair(bias: bool = True, **options: Any) -> tuple[Any, Any]:
    """The same adapted model twice: with PEFT's layers, and with ours."""
    torch.manual_seed(0)
    base = Two(bias).requires_grad_(False)
    prepack_linears(base)
    config = LoraConfig(
        r=3, lora_alpha=5, target_modules=["first", "second"], init_lora_weights=False, **options
    )
    theirs = get_peft_model(base, config)
    ours = copy.deepcopy(theirs)
    prepack_adapters(ours)
    kinds = [type(m) for m in ours.modules() if isinstance(m, LoraLinear)]
    assert kinds == [PackedLoraLinear, PackedLoraLinear]
    return theirs, ours


def found(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradient of the input, gradients of the adapter."""
    torch.manual_seed(1)
    leaf = x.clone().requires_grad_(True)
    output = model(leaf)
    (output.sin().sum() * 2).backward()
    assert leaf.grad is not None
    trained = [p.grad for p in model.parameters() if p.requires_grad]
    assert len(trained) == 4
    return [output, leaf.grad, *trained]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(11,), (6, 11), (2, 3, 11)])
def test_outputs_and_gradients_are_pefts(shape: tuple[int, ...], bias: bool) -> None:
    theirs, ours = pair(bias)
    x = torch.randn(shape)
    for expected, number in zip(found(theirs, x), found(ours, x), strict=True):
        assert torch.allclose(expected, number, atol=1e-6)


def test_an_input_without_gradient_gets_none() -> None:
    theirs, ours = pair()
    x = torch.randn(4, 11)
    for model in (theirs, ours):
        model(x).sum().backward()
    grads = [[p.grad for p in model.parameters() if p.requires_grad] for model in (theirs, ours)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def add_second(model: Any) -> None:
    model.add_adapter("more", LoraConfig(r=2, target_modules=["first"], init_lora_weights=False))
    model.base_model.set_adapter(["default", "more"])


CHANGES: dict[str, Callable[[Any], Any]] = {
    "switched off": lambda model: model.base_model.disable_adapter_layers(),
    "merged": lambda model: model.merge_adapter(),
    "two at once": add_second,
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_states_are_pefts(change: str) -> None:
    theirs, ours = pair()
    x = torch.randn(4, 11)
    before = ours(x)
    for model in (theirs, ours):
        torch.manual_seed(2)
        CHANGES[change](model)
    assert torch.allclose(theirs(x), ours(x), atol=1e-6)
    assert torch.allclose(ours(x), before, atol=1e-5) == (change == "merged")


# The second layer has no bias, of which PEFT warns whoever wants to merge.
@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed:peft.utils.warning.PeftWarning")
@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}]
)
def test_other_kinds_are_pefts(options: dict[str, Any]) -> None:
    theirs, ours = pair(**options)
    torch.manual_seed(3)
    x = torch.randn(4, 11)
    outputs = []
    for model in (theirs.train(), ours.train()):
        torch.manual_seed(4)
        outputs.append(model(x))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    plain = ours.base_model.model.first._plain_adapter(x)
    assert plain is None
    if "lora_dropout" in options:  # nothing is dropped in evaluation
        assert ours.eval().base_model.model.first._plain_adapter(x) == "default"


def test_training_uses_it(llama: Any) -> None:
    llama.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "up_proj"), seed=0))
    kinds = {type(m) for m in llama.model.modules() if isinstance(m, LoraLinear)}
    assert kinds == {PackedLoraLinear}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_pefts(dtype: torch.dtype) -> None:
    theirs, ours = pair()
    x = torch.randn(6, 11)
    numbers = []
    for model in (theirs, ours):
        with torch.autocast("cpu", dtype):
            numbers.append(found(model, x))
    for expected, number in zip(*numbers, strict=True):
        assert torch.equal(expected, number)
    exact = found(ours, x)
    assert torch.allclose(exact[0], numbers[1][0].float(), atol=0.1)
    assert not torch.equal(exact[0], numbers[1][0].float())  # autocast was on
