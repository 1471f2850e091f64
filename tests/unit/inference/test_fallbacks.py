"""Slower ways find what transformers itself finds, and are taken where a fast one fails."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, make_family

from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import EngineError, OutOfMemoryError, UserInputError
from remote_trainer.fallback import reason_to_give_up
from remote_trainer.inference.decoding_paths import why_not
from remote_trainer.inference.own_rows import row_logprobs
from remote_trainer.inference.prefix_cache import PrefixCache
from remote_trainer.inference.prefix_tree import TreeAttention
from remote_trainer.inference.sampling import WAYS, generate
from remote_trainer.records import (
    AdapterSettings,
    Continuation,
    LoadSettings,
    Sampling,
    ScoreRequest,
    TokenIds,
)

TARGETS = {
    "gpt2": ("c_attn", "c_proj"),
    "opt": ("q_proj", "fc1"),
    "bloom": ("query_key_value",),
    "falcon": ("query_key_value", "dense_4h_to_h"),
}
KINDS = [family for family in FAMILIES if family != "llama, tied"]
PROMPTS: list[TokenIds] = [(1, 20, 30, 40), (1, 60, 70, 80, 90, 100, 110)]
ROWS = [
    Continuation(PROMPTS[0], (50, 51, 52, 53, 54, 55, 56)),
    Continuation(PROMPTS[0], (50, 61)),
    Continuation(PROMPTS[1], (71,)),
    Continuation(PROMPTS[1], (72, 73, 74)),
]
WIDTH = 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Family -> a saved model, made when it is first asked for."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make_family(family, tmp_path_factory.mktemp("family"))
        return made[family]

    return folder


def adapted(folder: Path, family: str) -> Any:
    """A backend whose adapter changes what the model says."""
    backend = TransformersBackend.load(folder, LoadSettings())
    names = TARGETS.get(family, ("q_proj", "o_proj"))
    backend.add_adapter(AdapterSettings(4, 8, 0.0, names, seed=0))
    with torch.no_grad():
        for name, parameter in backend.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    backend.model.eval()
    return backend


def plainly(model: Any, row: Continuation) -> torch.Tensor:
    """Log-probs of one row by itself, from the logits of the stock forward pass."""
    ids = torch.tensor([row.context + row.ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(row.context) - 1 : -1]
    logprobs: torch.Tensor = logits.float().log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(row.ids)[:, None])[:, 0]


def gradient(model: Any) -> torch.Tensor:
    """Of the adapter."""
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return torch.cat(found)


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("chunked", [True, False])
def test_rows_of_their_own_have_the_plain_logprobs_and_gradients(
    folders: Any, family: str, chunked: bool
) -> None:
    model = adapted(folders(family), family).model
    weights = torch.arange(1.0, len(ROWS) * WIDTH + 1).view(len(ROWS), WIDTH)
    logprobs, entropies = row_logprobs(model, ROWS, WIDTH, 1.0, 0, chunked=chunked)
    (logprobs * weights).sum().backward()  # type: ignore[no-untyped-call]
    found = gradient(model)
    for i, row in enumerate(ROWS):
        expected = plainly(model, row)
        assert torch.allclose(logprobs[i, : len(row.ids)], expected, atol=1e-5)
        assert not logprobs[i, len(row.ids) :].any()
        assert (entropies[i, : len(row.ids)] > 0).all()
        (expected * weights[i, : len(row.ids)]).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(found, gradient(model), rtol=1e-3, atol=1e-4 * float(found.abs().max()))


@pytest.mark.parametrize("family", KINDS)
def test_scores_and_training_numbers_are_the_plain_ones_whatever_way_they_go(
    folders: Any, family: str
) -> None:
    backend = adapted(folders(family), family)
    expected = [plainly(backend.model, row).detach() for row in ROWS]
    scored = backend.score([ScoreRequest.of(row.context, row.ids) for row in ROWS])
    logprobs, _ = backend.logprobs(backend.model.train(), ROWS, WIDTH, 1.0)
    for i, (row, plain) in enumerate(zip(ROWS, expected, strict=True)):
        assert torch.allclose(torch.tensor(scored[i]), plain, atol=1e-5)
        assert torch.allclose(logprobs[i, : len(row.ids)], plain, atol=1e-5)
    ways = backend.describe()["ways"]
    assert {"packed rows, scoring", "packed rows, training"} <= set(ways)


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_every_way_that_is_taken_says_what_transformers_says(
    folders: Any, family: str, way: Any
) -> None:
    backend = adapted(folders(family), family)
    dtype = torch.float32
    reason = why_not(way, backend.model, backend.prompt_tokenizer, PROMPTS, dtype)
    if reason is not None:
        assert way.shared  # nothing else may be refused
        return
    sampling = Sampling(8, temperature=0)
    found = generate(backend.model, backend.prompt_tokenizer, PROMPTS, sampling, 512, dtype, way)
    for prompt, said in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt])
        expected = backend.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
            eos_token_id=list(backend.prompt_tokenizer.eos_ids),
            pad_token_id=backend.prompt_tokenizer.pad_id,
        )[0, len(prompt) :].tolist()  # fmt: skip
        assert list(said.ids) == expected
        plain = plainly(backend.model, Continuation(prompt, said.ids)).tolist()
        assert said.logprobs == pytest.approx(plain, abs=1e-4)


def fail(*_: Any, **__: Any) -> Any:
    raise IndexError("list index out of range")


def test_an_error_of_a_packed_pass_is_told_and_rows_go_alone(
    llama: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    llama.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj",), seed=0))
    expected = [plainly(llama.model, row).detach() for row in ROWS]
    asked = [ScoreRequest.of(row.context, row.ids) for row in ROWS]
    assert llama.shares_prefixes(ROWS)
    assert llama.shares_prefixes(ROWS, training=True)
    monkeypatch.setattr(TreeAttention, "attend", fail)
    with caplog.at_level(logging.WARNING):
        scored = llama.score(asked)
        logprobs, _ = llama.logprobs(llama.model.train(), ROWS, WIDTH, 1.0)
    for i, plain in enumerate(expected):
        assert torch.allclose(torch.tensor(scored[i]), plain, atol=1e-5)
        assert torch.allclose(logprobs[i, : len(plain)], plain, atol=1e-5)
    told = "every completion costs its prompt again, {}: it fails: IndexError: list index out"
    assert told.format("scoring") in caplog.text
    assert told.format("training") in caplog.text
    assert "IndexError" in llama.describe()["ways"]["packed rows, scoring"]
    caplog.clear()
    llama.score(asked)
    assert caplog.text == ""  # told once


def test_an_error_while_decoding_is_told_and_the_same_is_drawn_more_slowly(
    llama: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sampling = Sampling(6, seed=3)
    expected = [g.ids for g in llama.generate(PROMPTS * 2, sampling)]
    monkeypatch.setattr(PrefixCache, "attend", fail)
    assert [g.ids for g in llama.generate(PROMPTS * 2, sampling)] == expected
    assert "every completion keeps its prompt's cache: it fails: IndexError" in caplog.text
    assert "IndexError" in llama.describe()["ways"]["sampling in float32"]


def test_a_cache_that_stays_empty_is_noticed_and_not_decoded_from(
    llama: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What takes the cache under another name answers every token as if it were the first."""
    greedy = Sampling(8, temperature=0)
    expected = [g.ids for g in llama.generate(PROMPTS, greedy)]
    fresh = TransformersBackend(llama.model, llama.prompt_tokenizer.tokenizer)

    def forgetful(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "past_key_values": None, "use_cache": False}

    llama.model.base_model.register_forward_pre_hook(forgetful, with_kwargs=True)
    assert [g.ids for g in fresh.generate(PROMPTS, greedy)] == expected
    assert "reads every text anew at each token" in caplog.text


def test_a_head_that_is_no_module_of_its_own_gets_whole_logits(
    llama: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [plainly(llama.model, row).detach() for row in ROWS]
    head, own = llama.model.lm_head, llama.model.forward
    llama.model.lm_head = torch.nn.Identity()
    llama.model.lm_head.weight = head.weight

    def forward(*args: Any, logits_to_keep: int = 0, **kwargs: Any) -> Any:
        output = own(*args, logits_to_keep=logits_to_keep, **kwargs)
        output.logits = torch.nn.functional.linear(output.logits, head.weight).tanh() * 3
        return output

    llama.model.forward = forward
    expected = [plainly(llama.model, row).detach() for row in ROWS]
    logprobs, _ = llama.logprobs(llama.model, ROWS, WIDTH, 1.0)
    for found, plain in zip(logprobs, expected, strict=True):
        assert torch.allclose(found[: len(plain)], plain, atol=1e-5)
    assert "the logits of whole rows are in memory at once" in caplog.text


def test_ordered_weights_are_given_up_where_they_fail(
    llama: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from remote_trainer.cpu.prepacked_linear import PrepackedLinear

    expected = [plainly(llama.model, row).detach() for row in ROWS]
    monkeypatch.setattr(PrepackedLinear, "product", fail)
    scored = llama.score([ScoreRequest.of(row.context, row.ids) for row in ROWS])
    assert all(
        torch.allclose(torch.tensor(s), p, atol=1e-5) for s, p in zip(scored, expected, strict=True)
    )
    assert "linear layers run as torch's own: it fails: IndexError" in caplog.text
    assert not any(type(module) is PrepackedLinear for module in llama.model.modules())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no memory for it"),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"
        ),
        UserInputError.at("x", "wrong"),
    ],
)
def test_a_slower_way_is_not_tried_where_it_would_not_help(
    error: Exception, llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    asked = [ScoreRequest.of(row.context, row.ids) for row in ROWS]
    llama.score(asked)
    monkeypatch.setattr(TreeAttention, "attend", raises)
    # Where memory is short, fewer tokens at once are tried first.
    users = isinstance(error, UserInputError)
    expected, said = (UserInputError, str(error)) if users else (OutOfMemoryError, "out of memory")
    with pytest.raises(expected, match=re.escape(said)):
        llama.score(asked)


def test_what_an_engine_is_said_of_is_a_reason() -> None:
    assert reason_to_give_up(EngineError("kept nothing")) == "it fails: EngineError: kept nothing"


def test_lengths_and_ids_without_a_vector_are_refused_by_name(folders: Any) -> None:
    backend = TransformersBackend.load(folders("gpt2"), LoadSettings())
    assert backend.most_positions == 64
    with pytest.raises(
        UserInputError, match=r"a sequence of 69 tokens .* max_position_embeddings=64"
    ):
        backend.generate([tuple(range(5, 65))], Sampling(10))
    with pytest.raises(UserInputError, match=r"token id 5000 is out of range: .* [0-9]+ rows"):
        backend.score([ScoreRequest.of((1, 5000), (3,))])
    assert TransformersBackend.load(folders("llama"), LoadSettings()).most_positions is None


def test_layers_are_fused_after_a_comparison_of_their_own(
    llama: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only those with an adapter are fused, and the base samples before it has one."""
    from remote_trainer.cpu.fused_layers import FusedLayer

    greedy = Sampling(8, temperature=0)
    expected = [g.ids for g in llama.generate(PROMPTS, greedy)]
    llama.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "o_proj"), seed=0))
    forward = FusedLayer.forward

    def without_cache(self: Any, *args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(FusedLayer, "forward", without_cache)
    assert [g.ids for g in llama.generate(PROMPTS, greedy)] == expected  # the adapter begins at 0
    assert "sampling runs the model's own layers, not fused ones" in caplog.text
