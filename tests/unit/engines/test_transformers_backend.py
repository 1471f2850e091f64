"""Scoring, generation, prompt_tokenizer and model names against independent computations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.errors import UserInputError
from remote_trainer.inference.scoring import score_requests
from remote_trainer.models.builtin_model import BUILTIN_NAME, builtin_folder
from remote_trainer.models.resolve import find_model
from remote_trainer.records import AdapterSettings, Prompt, Sampling, ScoreRequest, TokenIds
from remote_trainer.tokenization.light_tokenizer import light_codec
from remote_trainer.tokenization.prompt_tokenizer import TemplateRefusal

ADAPTER = AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj", "down_proj"), seed=3)


def requests_of_many_lengths() -> list[ScoreRequest]:
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> TokenIds:
        return tuple(torch.randint(6, 300, (length,), generator=generator).tolist())

    requests = []
    for context, target in [(1, 1), (5, 3), (12, 1), (3, 9), (30, 7), (2, 20), (12, 2)]:
        ids = draw(target)
        requests.append(ScoreRequest(draw(context), ids, ids))
    return requests


def slow_logprobs(model: Any, request: ScoreRequest) -> list[float]:
    """One row in float64, full logits."""
    model = model.double()
    ids = torch.tensor([request.context + request.continuation])
    with torch.no_grad():
        logprobs = model(ids).logits[0].log_softmax(-1)
    model.float()
    start = len(request.context) - 1
    return [float(logprobs[start + i, token]) for i, token in enumerate(request.target)]


@pytest.mark.parametrize("max_tokens", [1, 16, 40, 10_000])
def test_scores_do_not_depend_on_batching_or_padding(backend: Any, max_tokens: int) -> None:
    requests = requests_of_many_lengths()
    found = score_requests(backend.model, requests, backend.prompt_tokenizer.pad_id, max_tokens)
    for request, logprobs in zip(requests, found, strict=True):
        assert list(logprobs) == pytest.approx(slow_logprobs(backend.model, request), abs=1e-5)


def test_batches_hold_no_more_than_asked(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    forward = llama.model.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    monkeypatch.setattr(llama.model, "forward", spy)
    score_requests(llama.model, requests_of_many_lengths(), 0, 50)
    assert sum(rows for rows, _ in seen) == 7
    assert all(rows * length <= 50 for rows, length in seen)


def test_targets_may_differ_from_the_continuation(llama: Any) -> None:
    request = ScoreRequest((7, 8), (9, 10, 11), (20, 21))
    assert list(llama.score([request])[0]) == pytest.approx(
        slow_logprobs(llama.model, request), abs=1e-5
    )


def test_scoring_leaves_mode_and_gradient_as_they_were(llama: Any) -> None:
    llama.add_adapter(ADAPTER)
    for training in (True, False):
        llama.model.train(training)
        llama.score(requests_of_many_lengths())
        assert llama.model.training is training
    assert torch.is_grad_enabled()
    with pytest.raises((IndexError, RuntimeError), match="index"):
        llama.score([ScoreRequest((1,), (10**6,), (10**6,))])
    assert not llama.model.training


def test_reference_is_the_model_without_its_adapter(llama: Any) -> None:
    request = requests_of_many_lengths()[4]
    before = llama.score([request])[0]
    llama.add_adapter(ADAPTER)
    assert llama.score([request])[0] == pytest.approx(before, abs=1e-6)
    with torch.no_grad():
        for name, parameter in llama.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    reference = ScoreRequest(request.context, request.continuation, request.target, "reference")
    policy, base = llama.score([request, reference])
    assert base == pytest.approx(before, abs=1e-6)
    assert max(abs(a - b) for a, b in zip(policy, base, strict=True)) > 0.05


def test_without_an_adapter_the_reference_is_the_model_itself(llama: Any) -> None:
    request = ScoreRequest.of((1,), (2,))
    assert llama.score([replace(request, scored_by="reference")]) == llama.score([request])


def test_adapter_weights_depend_on_the_seed_alone(llama_folder: Path) -> None:
    from remote_trainer.engines.transformers_backend import TransformersBackend
    from remote_trainer.records import LoadSettings

    def weights(noise: int) -> list[torch.Tensor]:
        torch.manual_seed(noise)
        backend = TransformersBackend.load(llama_folder, LoadSettings())
        backend.add_adapter(ADAPTER)
        return [p for n, p in backend.model.named_parameters() if "lora_A" in n]

    assert all(torch.equal(a, b) for a, b in zip(weights(1), weights(2), strict=True))


PROMPTS: list[TokenIds] = [(1, 20, 30, 40), (1, 50), (1, 60, 70, 80, 90, 100, 110)]


@pytest.mark.parametrize("temperature", [0, 0.7, 1.0])
def test_generation_records_the_logprob_of_every_id(backend: Any, temperature: float) -> None:
    drawn = backend.generate(PROMPTS * 3, Sampling(12, temperature=temperature, top_k=50, seed=5))
    scored = backend.score(
        [ScoreRequest(p, g.ids, g.ids) for p, g in zip(PROMPTS * 3, drawn, strict=True)]
    )
    for generation, logprobs in zip(drawn, scored, strict=True):
        assert list(generation.logprobs) == pytest.approx(list(logprobs), abs=1e-4)
        assert len(generation.ids) <= 12
        assert generation.ended == (generation.ids[-1] in backend.prompt_tokenizer.eos_ids)
        assert not set(generation.ids[:-1]) & set(backend.prompt_tokenizer.eos_ids)


def test_generation_is_seeded_and_leaves_the_random_state_alone(llama: Any) -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    one = llama.generate(PROMPTS, Sampling(8, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one == llama.generate(PROMPTS, Sampling(8, seed=1))
    assert one != llama.generate(PROMPTS, Sampling(8, seed=2))


def test_generation_stops_at_every_end_id_of_the_model(llama: Any) -> None:
    llama.model.generation_config.eos_token_id = [2, *range(6, 350)]
    from remote_trainer.engines.transformers_backend import TransformersBackend

    backend = TransformersBackend(llama.model, llama.prompt_tokenizer.tokenizer)
    drawn = backend.generate(PROMPTS, Sampling(12, seed=1))
    assert [len(g.ids) for g in drawn if g.ended] != []
    assert all(len(g.ids) == 1 for g in drawn if g.ids[0] in backend.prompt_tokenizer.eos_ids)
    assert backend.prompt_tokenizer.without_eos((9, 1, 7, 8)) == (9, 1)


def test_light_tokenizer_is_the_real_one(tiny_folder: Path, backend: Any) -> None:
    light = light_codec(tiny_folder, {})
    assert light is not None
    real = backend.prompt_tokenizer
    chat: Prompt = [{"role": "system", "content": "S"}, {"role": "user", "content": "a\n b "}]
    prompts: list[Prompt] = ["Name a fruit. ", "<s>Name é 🚀", chat]
    for prompt in prompts:
        assert light.encode_prompt(prompt) == real.encode_prompt(prompt)
        assert light.prompt_text(prompt) == real.prompt_text(prompt)
    ids = real.encode("The answer is 42.</s>")
    assert light.decode(ids) == real.decode(ids) == "The answer is 42."
    assert (light.pad_id, light.eos_ids) == (real.pad_id, real.eos_ids)
    assert light_codec(tiny_folder.parent, {}) is None


def test_chat_templates_run_in_a_sandbox(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((tiny_folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "</s>", "chat_template": "{{ ''.__class__.__mro__ }}"})
    )
    prompt_tokenizer = light_codec(tmp_path, {})
    assert prompt_tokenizer is not None
    with pytest.raises(TemplateRefusal, match="SecurityError"):
        prompt_tokenizer.encode_prompt([{"role": "user", "content": "a"}])


def test_model_names(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(str(llama_folder)) == llama_folder
    monkeypatch.setenv("REMOTE_TRAINER_CACHE", str(tmp_path / "cache"))
    assert find_model(BUILTIN_NAME) is None
    builtin_folder().mkdir(parents=True)
    assert find_model(BUILTIN_NAME) == builtin_folder()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert find_model("owner/not-here") is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/config.json").write_text("{}")
    (tmp_path / "bin/pytorch_model.bin").write_bytes(b"x")
    for name, message in [
        ("builtin/other", "the only one is builtin/smollm2-135m-instruct"),
        ("./nowhere", "no folder './nowhere'"),
        (str(tmp_path), "has no config.json"),
        (str(tmp_path / "bin"), "has no .safetensors file"),
        ("not a model!", "is not a valid model id"),
    ]:
        with pytest.raises(UserInputError, match=r"model\.name") as caught:
            find_model(name)
        assert message in str(caught.value)
