"""The copy that samples: it answers as the model does, and the model stays as it was."""

from types import MethodType
from typing import Any

import pytest
import torch

from remote_trainer.cpu.sampling_copy import ConvertedWeightCache, make_sampling_copy
from remote_trainer.models.hardware import computes_in_bfloat16
from remote_trainer.models.modes import causal_model
from remote_trainer.records import AdapterSettings, Sampling

IDS = torch.tensor([[1, 20, 30, 40, 50, 60]])
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapted(backend: Any, targets: tuple[str, ...] = ALL) -> Any:
    """The backend's model with an adapter that changes its answers."""
    backend.add_adapter(AdapterSettings(4, 8, 0.0, targets, seed=0))
    with torch.no_grad():
        for name, parameter in backend.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return backend.model.eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """Of a fixed text."""
    found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("targets", [ALL, ("q_proj", "down_proj")])
def test_it_answers_as_the_adapted_model_does(backend: Any, targets: tuple[str, ...]) -> None:
    base = logits(backend.model)
    model = adapted(backend, targets)
    twin = make_sampling_copy(model, torch.float32)
    assert not any("lora" in name for name, _ in twin.named_modules())
    assert torch.allclose(logits(twin), logits(model), atol=1e-4)
    assert (logits(twin) - base).abs().max() > 0.1
    with model.disable_adapter():
        assert torch.allclose(logits(make_sampling_copy(model, torch.float32)), base, atol=1e-5)


def test_bfloat16_is_close_and_leaves_the_model_in_float32(backend: Any) -> None:
    model = adapted(backend)
    exact = logits(model)
    twin = make_sampling_copy(model, torch.bfloat16)
    assert twin.dtype == torch.bfloat16
    error = (logits(twin).float() - exact).abs().mean() / exact.abs().mean()
    assert 0 < error < 0.05
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(logits(model), exact)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sampling_leaves_every_bit_of_the_model(backend: Any, dtype: str) -> None:
    model = adapted(backend).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    backend.generate([(1, 20, 30)] * 3, Sampling(5, seed=1, dtype=dtype))
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    assert model.training


def test_later_changes_do_not_reach_it_and_a_new_copy_sees_them(backend: Any) -> None:
    model = adapted(backend)
    twin = make_sampling_copy(model, torch.float32)
    before = logits(twin)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).mul_(3)
    assert torch.equal(logits(twin), before)
    assert torch.allclose(
        logits(make_sampling_copy(model, torch.float32)), logits(model), atol=1e-4
    )


def test_weights_without_change_are_shared(backend: Any) -> None:
    twin = make_sampling_copy(backend.model, torch.float32)
    assert twin.get_input_embeddings().weight is backend.model.get_input_embeddings().weight
    assert torch.allclose(logits(twin), logits(backend.model), atol=1e-5)


def test_what_is_frozen_is_converted_once(backend: Any) -> None:
    model, kept = adapted(backend, ("q_proj",)), ConvertedWeightCache()
    first, second = (make_sampling_copy(model, torch.bfloat16, kept) for _ in range(2))
    assert first.get_input_embeddings().weight is second.get_input_embeddings().weight
    assert first.lm_head is second.lm_head
    layers = [twin.base_model.layers[0] for twin in (first, second)]
    assert layers[0].mlp_in is layers[1].mlp_in
    assert layers[0].mlp_out is layers[1].mlp_out
    # Adapted, so it may be another by now.
    assert layers[0].heads_in is not layers[1].heads_in
    with torch.no_grad():
        causal_model(model).lm_head.weight.data.mul_(2)
    third = make_sampling_copy(model, torch.bfloat16, kept)
    assert third.lm_head is not second.lm_head
    fresh = make_sampling_copy(model, torch.bfloat16)
    assert torch.equal(logits(third), logits(fresh))


def test_an_adapter_that_is_more_than_a_product_stays_in_the_copy(llama: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        llama.model, LoraConfig(r=4, target_modules=["q_proj"], use_dora=True)
    ).eval()
    twin = make_sampling_copy(model, torch.bfloat16)
    assert any("lora" in name for name, _ in twin.named_modules())
    assert twin.dtype == torch.float32
    assert torch.allclose(logits(twin), logits(model), atol=1e-5)


def test_dtypes_of_sampling(backend: Any) -> None:
    own = Sampling(4)
    assert backend.samples_as_it_scores(own)
    assert backend.samples_as_it_scores(Sampling(4, dtype="float32"))
    assert not backend.samples_as_it_scores(Sampling(4, dtype="bfloat16"))
    fast = computes_in_bfloat16(backend.model.device)
    assert backend.samples_as_it_scores(Sampling(4, dtype="auto")) == (not fast)
    backend.model = backend.model.to(torch.bfloat16)
    assert backend.samples_as_it_scores(Sampling(4, dtype="auto"))


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forward_that_was_put_on_the_model_is_not_the_copys(
    backend: Any, dtype: torch.dtype, bound: bool
) -> None:
    """TRL puts its own on the model it trains: a function that knows that model, and no copy."""
    model = adapted(backend)
    causal = causal_model(model)
    calls: list[str] = []
    expected = logits(make_sampling_copy(model, dtype))
    own = causal.forward

    def put_on(*args: Any, **kwargs: Any) -> Any:
        calls.append("put on")
        return own(*args, **kwargs)

    def put_on_bound(self: Any, *args: Any, **kwargs: Any) -> Any:
        return put_on(*args, **kwargs)

    causal.forward = MethodType(put_on_bound, causal) if bound else put_on
    twin = make_sampling_copy(model, dtype)
    found = logits(twin)
    assert calls == []
    assert torch.equal(found, expected)
    assert found.dtype == dtype
    logits(model)  # the model keeps what was put on it
    assert calls == ["put on"]


def test_what_was_converted_alone_is_not_taken_for_what_is_joined(backend: Any) -> None:
    """The base samples before the adapter is there; its layers are converted one by one."""
    kept = ConvertedWeightCache()
    make_sampling_copy(backend.model, torch.bfloat16, kept)
    model = adapted(backend, ("q_proj",))
    found, fresh = (logits(make_sampling_copy(model, torch.bfloat16, k)) for k in (kept, None))
    assert torch.equal(found, fresh)
    plain = [logits(make_sampling_copy(model, torch.bfloat16, k, fuse=False)) for k in (kept, None)]
    assert torch.equal(*plain)


def test_a_method_that_knows_no_other_model_is_the_copys_own(backend: Any) -> None:
    """Bound to the copy when it was copied, so it runs the copy."""

    def doubled(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = type(self).forward(self, *args, **kwargs)
        found.logits = 2 * found.logits
        return found

    expected = 2 * logits(backend.model)
    backend.model.forward = MethodType(doubled, backend.model)
    assert torch.allclose(
        logits(make_sampling_copy(backend.model, torch.float32)), expected, atol=1e-4
    )
