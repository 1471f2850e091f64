"""Layers that keep their weight in oneDNN's order: the same products, and no stale copies."""

import copy
import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn import Linear

from remote_trainer.cpu import prepacked_linear
from remote_trainer.cpu.prepacked_linear import (
    OrderedLinear,
    PrepackedLinear,
    can_order,
    prepack_linears,
)
from remote_trainer.records import AdapterSettings


def linear(bias: bool = True, dtype: torch.dtype = torch.float32) -> Linear:
    """A frozen layer with odd sizes."""
    torch.manual_seed(0)
    return Linear(37, 23, bias=bias).to(dtype).requires_grad_(False)


def packed(layer: Linear) -> PrepackedLinear:
    """The same layer, packed."""
    twin = copy.deepcopy(layer)
    prepack_linears(torch.nn.Sequential(twin))
    assert isinstance(twin, PrepackedLinear)
    return twin


@pytest.mark.parametrize("shape", [(37,), (1, 37), (9, 37), (2, 5, 37)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_those_of_a_linear_layer(
    shape: tuple[int, ...], bias: bool
) -> None:
    layer = linear(bias)
    twin = packed(layer)
    x = torch.randn(shape)
    assert torch.allclose(twin(x), layer(x), atol=1e-6)
    gradients = []
    for module in (layer, twin):
        leaf = x.clone().requires_grad_(True)
        (module(leaf).sin().sum() * 3).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    g = torch.randn(*shape[:-1], 23)
    assert torch.allclose(twin.transposed(g), g @ layer.weight, atol=1e-6)


def test_bfloat16_is_rounded_once() -> None:
    layer = linear(dtype=torch.bfloat16)
    x = torch.randn(6, 37, dtype=torch.bfloat16)
    exact = x.double() @ layer.weight.double().t() + layer.bias.double()
    for found in (packed(layer)(x), OrderedLinear(layer.weight, layer.bias)(x)):
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.double(), exact, rtol=2**-7, atol=2**-7)


def test_a_copy_is_made_anew_when_the_weight_changes() -> None:
    layer = packed(linear())
    x = torch.randn(3, 37)
    before = layer(x)
    layer.weight.mul_(2)
    assert torch.allclose(layer(x) - layer.bias, 2 * (before - layer.bias), atol=1e-6)
    layer.load_state_dict(linear().state_dict())
    assert torch.equal(layer(x), before)
    layer.weight.data.mul_(2)  # as PEFT merges: no version tells
    assert torch.allclose(layer(x) - layer.bias, 2 * (before - layer.bias), atol=1e-6)
    g = torch.randn(3, 23)
    layer.transposed(g)
    layer.weight.data.zero_()
    assert not layer.transposed(g).any()


@torch.no_grad()
def test_an_adapter_merged_in_place_is_in_the_products(llama: Any) -> None:
    llama.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "down_proj"), seed=0))
    for name, parameter in llama.model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.3)
    ids = torch.tensor([[1, 20, 30, 40]])
    expected = llama.model(ids).logits
    llama.model.merge_adapter()
    assert torch.allclose(llama.model(ids).logits, expected, atol=1e-4)
    llama.model.unmerge_adapter()
    with llama.model.disable_adapter():
        plain = llama.model(ids).logits
    assert (plain - expected).abs().max() > 0.1
    assert torch.allclose(llama.model.merge_and_unload()(ids).logits, expected, atol=1e-4)


def test_what_is_trained_or_of_another_type_is_a_plain_layer() -> None:
    trained = Linear(4, 3)
    assert not can_order(trained.weight)
    prepack_linears(torch.nn.Sequential(trained))
    assert type(trained) is Linear
    thawed = packed(linear()).requires_grad_(True)
    thawed(torch.randn(2, 37)).sum().backward()
    assert thawed.weight.grad is not None
    double = packed(linear()).double()
    assert double(torch.randn(2, 37, dtype=torch.float64)).dtype == torch.float64


def test_a_machine_without_room_for_copies_keeps_plain_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = linear()
    room = 4 * layer.weight.nbytes
    lacks = "they need 0.0 GB of memory, and 0.0 GB are free"
    for free, expected in ((room - 1, lacks), (room, None)):
        memory = type("Memory", (), {"available": free})
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: memory)
        monkeypatch.setattr(prepacked_linear, "free_in_container", lambda: None)
        assert prepack_linears(torch.nn.Sequential(layer)) == expected
        assert isinstance(layer, PrepackedLinear) is (expected is None)


def test_a_container_without_room_keeps_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its host has room enough."""
    layer = linear()
    for free in (0.0, 4.0 * layer.weight.nbytes - 1):
        monkeypatch.setattr(prepacked_linear, "free_in_container", lambda free=free: free)
        assert "0.0 GB are free" in str(prepack_linears(torch.nn.Sequential(layer)))
        assert not isinstance(layer, PrepackedLinear)


def test_copies_are_no_part_of_the_layer() -> None:
    layer = packed(linear())
    layer(torch.randn(2, 37))
    assert set(layer.state_dict()) == {"weight", "bias"}
    twin = copy.deepcopy(layer)
    assert "_copies" not in twin.__dict__
    assert torch.equal(twin(torch.ones(1, 37)), layer(torch.ones(1, 37)))


def test_training_orders_both_ways_before_it_starts(llama: Any) -> None:
    layers = [m for m in llama.model.modules() if isinstance(m, PrepackedLinear)]
    assert len(layers) == 15  # seven in each of two layers, and the head
    assert not any("_copies" in layer.__dict__ for layer in layers)
    llama.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj",), seed=0))
    assert all(set(layer.__dict__["_copies"]) == {False, True} for layer in layers)


FAULTS = """
import resource, statistics, sys
import torch
from remote_trainer.cpu.malloc import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "keep":
    assert keep_freed_memory()
counts = []
for turn in range(10):
    before = faults()
    blocks = [torch.ones(2**20) for _ in range(32)]  # 4 MB each
    del blocks
    counts.append(faults() - before)
# The first turn always faults, and now and then the kernel moves pages of a later one.
print(int(statistics.median(counts[1:])))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="says what glibc is to do")
def test_freed_memory_is_used_again_without_a_fault() -> None:
    # Left alone, glibc may or may not keep such blocks; this makes it give every one of them back.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
    found = {
        way: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, way],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            ).stdout
        )
        for way in ("keep", "leave")
    }
    assert 10 * found["keep"] < found["leave"]
