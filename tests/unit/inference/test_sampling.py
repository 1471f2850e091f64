"""Sampling: the model's own distribution, whatever is decoded beside it."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from transformers import Cache

from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import EngineError
from remote_trainer.inference.decoders import RepeatingDecoder, SharedDecoder
from remote_trainer.inference.decoding_paths import why_not
from remote_trainer.inference.sampling import WAYS, generate
from remote_trainer.records import AdapterSettings, Sampling, TokenIds

PROMPT: TokenIds = (1, 20, 30, 40)
OTHER: TokenIds = (1, 60, 70, 80, 90, 100, 110)


def distribution(model: Any, ids: TokenIds, temperature: float) -> torch.Tensor:
    """Probabilities of the next id, from a row of its own."""
    with torch.no_grad():
        probabilities: torch.Tensor = (
            model(torch.tensor([ids])).logits[0, -1] / temperature
        ).softmax(-1)
    return probabilities


def chi_square(counts: Counter[int], p: torch.Tensor, draws: int) -> tuple[float, int]:
    """(statistic, degrees of freedom) over ids expected five times or more, the others pooled."""
    expected = (p * draws).tolist()
    common = [i for i, e in enumerate(expected) if e >= 5]
    pairs = [(counts[i], expected[i]) for i in common]
    rest = draws - sum(e for _, e in pairs)
    if rest > 5:
        pairs.append((draws - sum(counts[i] for i in common), rest))
    return sum((found - e) ** 2 / e for found, e in pairs), len(pairs) - 1


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_first_and_second_ids_are_drawn_from_the_model(backend: Any, temperature: float) -> None:
    draws = 4000
    found = backend.generate([PROMPT] * draws, Sampling(2, temperature=temperature, seed=3))
    firsts = Counter(g.ids[0] for g in found)
    likeliest, _ = firsts.most_common(1)[0]
    seconds = Counter(g.ids[1] for g in found if g.ids[0] == likeliest and len(g.ids) > 1)
    for counts, seen in ((firsts, PROMPT), (seconds, (*PROMPT, likeliest))):
        p = distribution(backend.model, seen, temperature)
        statistic, freedom = chi_square(counts, p, counts.total())
        assert freedom >= 3
        # Wilson and Hilferty: the cube root is close to normal; 4 sigma is 1 in 30 000.
        spread = 2 / (9 * freedom)
        assert ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread) < 4


def test_a_completion_does_not_depend_on_what_is_beside_it(backend: Any) -> None:
    sampling = Sampling(10, seed=7)
    together = backend.generate([PROMPT, OTHER, PROMPT, OTHER, PROMPT], sampling)
    alone = backend.generate([PROMPT] * 3, sampling)
    turned = backend.generate([OTHER, PROMPT, OTHER], sampling)
    backend.max_tokens_per_batch = 30  # two rows at once
    split = backend.generate([PROMPT, OTHER, PROMPT, OTHER, PROMPT], sampling)
    ids = [g.ids for g in together]
    assert [g.ids for g in alone] == [ids[0], ids[2], ids[4]]
    assert [g.ids for g in turned] == [ids[1], ids[0], ids[3]]
    assert [g.ids for g in split] == ids
    assert len(set(ids)) == 5  # equal prompts draw different completions


def test_equal_prompts_are_read_once(llama: Any) -> None:
    llama.generate([PROMPT], Sampling(1))  # the first call compares two ways to decode
    shapes: list[tuple[int, ...]] = []
    llama.model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    llama.generate([PROMPT] * 6 + [OTHER] * 6, Sampling(3, seed=1, min_new_tokens=3))
    assert shapes == [(2, len(OTHER)), (12, 1), (12, 1)]


def test_a_prompt_counts_once_towards_the_most_tokens_where_it_is_shared(llama: Any) -> None:
    llama.generate([PROMPT], Sampling(1))  # the first call compares two ways to decode
    shapes: list[tuple[int, ...]] = []
    llama.model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    prompts = [OTHER, PROMPT, PROMPT, OTHER, PROMPT]
    for most, shared, sizes in (
        (2 * (7 + 3 * 3), True, [[2, 5]]),  # two prompts, padded to seven, three places each
        (2 * (7 + 3 * 3) - 1, True, [[2, 4], [1, 1]]),
        (5 * (7 + 3) - 1, False, [[2, 4], [1, 1]]),
        (1, True, [[1, 1]] * 5),
    ):
        shapes.clear()
        sampling = Sampling(3, seed=1, min_new_tokens=3)
        way = WAYS[0] if shared else WAYS[2]
        generate(llama.model, llama.prompt_tokenizer, prompts, sampling, most, torch.float32, way)
        assert [n for n, length in shapes if length > 1] == [read for read, _ in sizes]
        assert [n for n, length in shapes if length == 1][::2] == [rows for _, rows in sizes]


def test_rows_that_have_ended_leave(llama: Any) -> None:
    llama.generate([PROMPT], Sampling(1))  # the first call compares two ways to decode
    sizes: list[int] = []
    llama.model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    llama.prompt_tokenizer.eos_ids = tuple(range(2, 200))
    drawn = llama.generate([PROMPT] * 12, Sampling(8, seed=1))
    lengths = [len(g.ids) for g in drawn]
    assert sizes[1:] == [n for t in range(1, 8) if (n := sum(length > t for length in lengths))]
    assert len(set(lengths)) > 2


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.3), (5, 0.5)])
def test_top_k_and_top_p_keep_what_transformers_keeps(
    backend: Any, top_k: int, top_p: float
) -> None:
    drawn = backend.generate(
        [PROMPT] * 300, Sampling(1, temperature=0.8, top_k=top_k, top_p=top_p, seed=2)
    )
    p = distribution(backend.model, PROMPT, 0.8)
    order = p.argsort(descending=True)[: top_k or None]
    kept = p[order] / p[order].sum()
    inside = (kept.cumsum(0) - kept) < top_p  # the id that passes the border stays
    allowed = set(order[inside].tolist())
    found = {g.ids[0] for g in drawn}
    assert found <= allowed
    assert len(found) >= min(3, len(allowed))


def test_greedy_is_transformers_greedy(backend: Any) -> None:
    for prompt in (PROMPT, OTHER):
        expected = backend.model.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False,
            eos_token_id=list(backend.prompt_tokenizer.eos_ids),
            pad_token_id=backend.prompt_tokenizer.pad_id,
        )[0, len(prompt) :].tolist()  # fmt: skip
        [found] = backend.generate([prompt], Sampling(8, temperature=0))
        assert list(found.ids) == expected


def test_the_shortest_length_is_kept(llama: Any) -> None:
    llama.prompt_tokenizer.eos_ids = tuple(range(2, 300))
    drawn = llama.generate([PROMPT] * 20, Sampling(8, seed=1, min_new_tokens=4))
    assert min(len(g.ids) for g in drawn) >= 5
    assert all(set(g.ids[:4]).isdisjoint(llama.prompt_tokenizer.eos_ids) for g in drawn)


# -- two ways to keep the cache -------------------------------------------------------------------


@torch.no_grad()
def test_a_shared_cache_gives_the_logits_of_rows_of_their_own(backend: Any) -> None:
    """Ragged prompts, ragged groups, and completions that leave one after the other."""
    prompts = [OTHER, PROMPT, OTHER, PROMPT, PROMPT, (1, 9)]
    draw = torch.Generator().manual_seed(0)
    decoder = SharedDecoder(backend.model, backend.prompt_tokenizer.pad_id, 8)
    texts = [list(prompt) for prompt in prompts]
    found = decoder.begin(prompts)
    for leaving in (None, 2, None, 0, 3, None):
        for row, text in zip(found, texts, strict=True):
            alone = backend.model(torch.tensor([text])).logits[0, -1]
            assert torch.allclose(row, alone, atol=1e-4)
        token = torch.randint(6, 300, (len(texts),), generator=draw)
        if leaving is not None:
            kept = [n for n in range(len(texts)) if n != leaving]
            decoder.keep(kept)
            token, texts = token[kept], [texts[n] for n in kept]
        texts = [[*text, int(t)] for text, t in zip(texts, token, strict=True)]
        found = decoder.step(token)
    assert len(texts) == 3


@torch.no_grad()
def test_no_prompt_is_repeated_in_a_shared_cache(llama: Any) -> None:
    decoders = (SharedDecoder(llama.model, 0, 4), RepeatingDecoder(llama.model, 0))
    held = []
    for decoder in decoders:
        decoder.begin([PROMPT] * 16)
        layer = decoder._cache.layers[0]
        prompt = getattr(layer, "prompt_values", layer.values)
        held.append(prompt.shape[0] * prompt.shape[2])
    assert held == [len(PROMPT), 16 * len(PROMPT)]


def test_all_ways_draw_the_same(backend: Any) -> None:
    sampling = Sampling(8, seed=5, temperature=0.8)
    ways = [
        generate(
            backend.model,
            backend.prompt_tokenizer,
            [PROMPT, OTHER] * 4,
            sampling,
            512,
            torch.float32,
            way,
        )
        for way in WAYS
    ]
    for others in ways[1:]:
        assert [g.ids for g in ways[0]] == [g.ids for g in others]
        for one, other in zip(ways[0], others, strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_logprobs_are_noted_at_one_and_at_the_temperature_of_sampling(backend: Any) -> None:
    [drawn] = backend.generate([PROMPT], Sampling(5, seed=4, temperature=0.6))
    for t, token in enumerate(drawn.ids):
        seen = (*PROMPT, *drawn.ids[:t])
        for noted, temperature in ((drawn.logprobs, 1.0), (drawn.drawn_logprobs, 0.6)):
            expected = distribution(backend.model, seen, temperature)[token].log()
            assert noted[t] == pytest.approx(expected.item(), abs=1e-4)
    [greedy] = backend.generate([PROMPT], Sampling(5, temperature=0))
    assert greedy.drawn_logprobs == greedy.logprobs


def test_sharing_is_found_out_once_and_refused_aloud(
    llama: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dtype = torch.float32
    for way in WAYS:
        assert why_not(way, llama.model, llama.prompt_tokenizer, [PROMPT, OTHER], dtype) is None
    expected = llama.generate([PROMPT] * 3, Sampling(4, seed=1))
    assert llama.describe()["ways"]["sampling in float32"] == WAYS[1].name
    llama.model.config._attn_implementation = "eager"
    again = TransformersBackend(llama.model, llama.prompt_tokenizer.tokenizer)
    assert [g.ids for g in again.generate([PROMPT] * 3, Sampling(4, seed=1))] == [
        g.ids for g in expected
    ]
    assert "keeps its prompt's cache: its attention runs as eager" in caplog.text


def test_a_model_that_keeps_what_it_is_told_from_its_attention_repeats(backend: Any) -> None:
    attend = type(backend.model.base_model.layers[0].self_attn).forward

    class Deaf(type(backend.model.base_model.layers[0].self_attn)):  # type: ignore[misc]
        def forward(self, *args: Any, shared: Any = None, **kwargs: Any) -> Any:
            return attend(self, *args, **kwargs)

    for layer in backend.model.base_model.layers:
        layer.self_attn.__class__ = Deaf
    for way in WAYS:
        reason = why_not(
            way, backend.model, backend.prompt_tokenizer, [PROMPT, OTHER], torch.float32
        )
        assert ("does not decode so" in str(reason)) == way.shared


def test_a_cache_that_stays_empty_is_no_answer(llama: Any) -> None:
    """Going on from it would mean answers without their prompt; without a cache they are right."""
    expected = llama.generate([PROMPT], Sampling(3, temperature=0))

    def forgetful(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kept = {k: v for k, v in kwargs.items() if not isinstance(v, Cache)}
        return args, kept

    causal = llama.model
    causal.base_model.register_forward_pre_hook(forgetful, with_kwargs=True)
    with pytest.raises(EngineError, match="the model read 4 tokens and kept 0 of them"):
        RepeatingDecoder(causal, 0).begin([PROMPT])
    found = TransformersBackend(causal, llama.prompt_tokenizer.tokenizer).generate(
        [PROMPT], Sampling(3, temperature=0)
    )
    assert [each.ids for each in found] == [each.ids for each in expected]


def test_where_nothing_is_shared_the_layers_are_transformers_own(llama: Any) -> None:
    """A fallback that kept the joined layers would fail where they do."""
    llama.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "down_proj"), seed=0))
    seen: list[set[str]] = []
    begin = RepeatingDecoder.begin

    def watched(self: RepeatingDecoder, prompts: Any) -> torch.Tensor:
        seen.append({type(layer).__name__ for layer in self._model.base_model.layers})
        return begin(self, prompts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RepeatingDecoder, "begin", watched)
        generate(
            llama.model, llama.prompt_tokenizer, [PROMPT], Sampling(2), 512, torch.float32, WAYS[2]
        )
    assert seen == [{"LlamaDecoderLayer"}]
