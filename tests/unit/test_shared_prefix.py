"""Packed rows against rows of their own: the same numbers, the same gradients."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from remote_trainer.config import parse_config
from remote_trainer.engine.backend import AdapterSettings
from remote_trainer.engine.head import token_numbers
from remote_trainer.engine.prefix_tree import TreeAttention, pack
from remote_trainer.engine.shared_prefix import continuation_logprobs, why_not_packed
from remote_trainer.records import Continuation, EncodedRow, Measure, Row, TokenIds
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer.grpo import RewardTrainer
from remote_trainer.trainer.metrics import RunLog


def draw(seed: int) -> Any:
    """Random ids of a given length."""
    generator = torch.Generator().manual_seed(seed)
    return lambda length: tuple(torch.randint(6, 300, (length,), generator=generator).tolist())


def ragged() -> list[Continuation]:
    """Groups of other sizes, completions of other lengths, twins, and ones that begin alike."""
    ids = draw(1)
    prompts = [ids(9), ids(5)]
    prompts.append((*prompts[0], 7))  # one prompt that begins with another
    rows = [Continuation(p, ids(n)) for p in prompts for n in (4, 7, 1, 7)]
    return [*rows, rows[1], Continuation(prompts[0], rows[1].ids[:3] + ids(4))]


# -- the tree -----------------------------------------------------------------------------------


def test_what_is_shared_stands_once() -> None:
    [row] = pack([(1, 2, 3), (1, 2, 4, 5), (1, 2), (9,), (1, 2, 3)], 100)
    assert row.ids == [1, 2, 3, 4, 5, 9]
    assert row.depths == [0, 1, 2, 2, 3, 0]
    paths = dict(zip(row.sequences, row.paths, strict=True))
    assert paths == {2: [0, 1], 0: [0, 1, 2], 4: [0, 1, 2], 1: [0, 1, 3, 4], 3: [5]}


@pytest.mark.parametrize("block_tokens", [1, 2, 4, 100])
def test_a_token_sees_its_ancestors_and_itself(block_tokens: int) -> None:
    [row] = pack([(1, 2, 3), (1, 2, 4, 5), (1, 2), (9,), (1, 2, 3)], 100)
    # With equal scores and one-hot values, attention shows what is seen: 1/n for each of n tokens.
    attention = TreeAttention(row, torch.device("cpu"), block_tokens)
    zeros, values = torch.zeros(1, 4, 6, 6), torch.eye(6).expand(1, 2, 6, 6)
    seen_LHL = attention.attend(0, zeros, zeros[:, :2], values, 1.0)[0]
    for head in range(4):
        assert (seen_LHL[:, head] > 0).int().tolist() == [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 0, 1, 0, 0],
            [1, 1, 0, 1, 1, 0],
            [0, 0, 0, 0, 0, 1],
        ]


@pytest.mark.parametrize("most", [1, 6, 20, 1000])
def test_rows_keep_to_their_size_and_hold_every_sequence(most: int) -> None:
    sequences: list[TokenIds] = [c.context + c.ids for c in ragged()]
    rows = list(pack(sequences, most))
    assert all(len(row) <= most or len(row.sequences) == 1 for row in rows)
    found = {
        s: tuple(row.ids[place] for place in path)
        for row in rows
        for s, path in zip(row.sequences, row.paths, strict=True)
    }
    assert found == dict(enumerate(sequences))


# -- numbers ------------------------------------------------------------------------------------


def alone(model: Any, row: Continuation, temperature: float) -> tuple[Any, Any]:
    """(log-probs, entropies) from full logits of a row of its own."""
    logits = model(torch.tensor([row.context + row.ids])).logits[0] / temperature
    logp = logits.log_softmax(-1)[len(row.context) - 1 : -1]
    return logp.gather(-1, torch.tensor(row.ids)[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def gradients(model: Any) -> list[torch.Tensor]:
    """Of all weights of the layers."""
    return [p.grad.clone() for n, p in model.named_parameters() if "layers" in n]


@pytest.mark.parametrize("block_tokens", [128, 5])
@pytest.mark.parametrize("row_tokens", [1024, 20, 3])
def test_packed_logprobs_entropies_and_gradients_are_those_of_single_rows(
    backend: Any, monkeypatch: pytest.MonkeyPatch, block_tokens: int, row_tokens: int
) -> None:
    monkeypatch.setattr("remote_trainer.engine.prefix_tree.BLOCK_TOKENS", block_tokens)
    model, rows, width = backend.model.requires_grad_(True), ragged(), 8
    weights = torch.arange(1.0, len(rows) * width + 1).view(len(rows), width)
    logprobs, entropies = continuation_logprobs(model, rows, width, 0.7, row_tokens)
    (logprobs * weights).sum().backward()  # type: ignore[no-untyped-call]
    packed = gradients(model)
    model.zero_grad()
    for i, row in enumerate(rows):
        expected, entropy = alone(model, row, 0.7)
        length = len(row.ids)
        assert torch.allclose(logprobs[i, :length], expected, atol=1e-5)
        assert torch.allclose(entropies[i, :length], entropy, atol=1e-5)
        assert not logprobs[i, length:].any()
        (expected * weights[i, :length]).sum().backward()
    for found, one in zip(packed, gradients(model), strict=True):
        assert torch.cosine_similarity(found.flatten(), one.flatten(), dim=0) > 0.99999
        assert torch.allclose(found, one, atol=1e-4 * float(one.abs().max()))


@pytest.mark.parametrize("measure", ["logprob", "entropy", "self_certainty"])
def test_the_chunked_head_is_the_head(
    backend: Any, monkeypatch: pytest.MonkeyPatch, measure: Measure
) -> None:
    monkeypatch.setattr("remote_trainer.engine.head.CHUNK_BYTES", 4 * 400 * 3)  # three tokens
    head, generator = backend.model.lm_head, torch.Generator().manual_seed(0)
    hidden = torch.randn(10, head.weight.shape[1], generator=generator)
    target = torch.randint(0, 300, (10,), generator=generator)
    logp = head(hidden).log_softmax(-1)
    expected = {
        "logprob": logp.gather(-1, target[:, None])[:, 0],
        "entropy": -(logp.exp() * logp).sum(-1),
        "self_certainty": -(logp + torch.tensor(float(logp.shape[-1])).log()).mean(-1),
    }[measure]
    assert torch.allclose(token_numbers(hidden, head, target, measure), expected, atol=1e-5)


# -- when not to ----------------------------------------------------------------------------------


def test_plain_attention_packs(backend: Any) -> None:
    assert why_not_packed(backend.model, ragged()) is None


def test_a_model_that_keeps_what_it_is_told_from_its_attention_does_not_pack(backend: Any) -> None:
    forward = backend.model.base_model.forward
    backend.model.base_model.forward = lambda *a, shared=None, **k: forward(*a, **k)
    reason = why_not_packed(backend.model, ragged())
    assert reason is not None
    assert "log-probs differ by" in reason


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("layer_types", ["full_attention", "linear_attention"], "its layers use linear_attention"),
        ("sliding_window", 128, "sliding window"),
        ("logit_scale", 0.25, "changed by logit_scale"),
        ("final_logit_softcapping", 30.0, "changed by final_logit_softcapping"),
        ("_attn_implementation", "eager", "its attention runs as eager, not as sdpa"),
    ],
)
def test_what_packing_cannot_know_is_read_from_the_config(
    llama: Any, setting: str, value: Any, reason: str
) -> None:
    setattr(llama.model.config, setting, value)
    assert reason in str(why_not_packed(llama.model, ragged()))


# -- in the trainer -------------------------------------------------------------------------------


@pytest.fixture
def trainer(backend: Any, tmp_path: Path) -> Any:
    """A trainer whose adapter is away from zero."""
    backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj", "down_proj"), seed=0))
    with torch.no_grad():
        for name, parameter in backend.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    training = {"num_generations": 4, "gradient_accumulation_steps": 2, "max_completion_length": 5}
    config = parse_config(
        json.dumps({"data": {"train": "-"}, "reward": {"type": "random"}, "training": training}),
        "c",
    )
    rows = []
    for i in range(3):
        prompt = [{"role": "user", "content": f"What is {i} + {i}?"}]
        rows.append(EncodedRow(Row(prompt, {}, f"f:{i}"), backend.codec.encode_prompt(prompt)))
    log = RunLog(RunDir(tmp_path), lambda line, updates: None)
    reward = RewardFunction(backend, config.reward, 5)
    return RewardTrainer(backend, reward, rows, config, RunDir(tmp_path), log)


def test_the_trainers_logprobs_are_the_stock_ones(trainer: Any) -> None:
    ids = draw(2)
    prompts = [ids(6)] * 4 + [ids(9)] * 4
    completions = [ids(n) for n in (5, 3, 5, 1, 2, 5, 4, 5)]
    input_ids = torch.zeros(8, 14, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        for start, part in ((9 - len(prompt), prompt), (9, completion)):
            input_ids[row, start : start + len(part)] = torch.tensor(part)
            mask[row, start : start + len(part)] = 1

    def numbers(method: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        trainer.model.zero_grad()
        logps, entropies, _ = method(
            trainer, trainer.model, input_ids, mask, 5, batch_size=4, compute_entropy=True
        )
        shown = mask[:, -5:].bool()
        (logps * shown).sum().backward()
        grads = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        return logps[shown].detach(), entropies[shown].detach(), torch.cat(grads)

    packed = numbers(RewardTrainer._get_per_token_logps_and_entropies)
    stock = numbers(GRPOTrainer._get_per_token_logps_and_entropies)
    assert trainer._backend.shares_prefixes([])
    assert torch.allclose(packed[0], stock[0], atol=1e-4)
    assert torch.allclose(packed[1], stock[1], atol=1e-4)
    assert torch.cosine_similarity(packed[2], stock[2], dim=0) > 0.9999


def test_micro_batches_hold_whole_groups(trainer: Any) -> None:
    batch = [{"prompt": r.row.prompt, "row": i} for i, r in enumerate(trainer._rows[:2])]
    trainer.model.train()
    for part in range(2):
        inputs = trainer._prepare_inputs([batch[0]] * 4 + [batch[1]] * 4)
        prompts = {tuple(row.tolist()) for row in inputs["prompt_ids"]}
        assert len(prompts) == 1
        expected = list(trainer._rows[part].prompt_ids)
        assert next(iter(prompts))[-len(expected) :] == tuple(expected)
        trainer._step += 1
