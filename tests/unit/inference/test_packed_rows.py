"""Packed rows against rows of their own: the same numbers, the same gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from tiny_models import make_family
from trl import GRPOTrainer

from remote_trainer.config import parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.inference import packed_rows as shared_prefix
from remote_trainer.inference.lm_head import token_numbers
from remote_trainer.inference.packed_rows import continuation_logprobs, hidden_at, packing_blocker
from remote_trainer.inference.prefix_tree import TreeAttention, pack
from remote_trainer.records import (
    AdapterSettings,
    Continuation,
    LoadSettings,
    Measure,
    Row,
    TokenIds,
)
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer.grpo import RewardTrainer
from remote_trainer.trainer.loop import train
from remote_trainer.trainer.packed_update import ROWS, continuations, trimmed
from remote_trainer.trainer.run_log import RunLog


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
    monkeypatch.setattr("remote_trainer.inference.prefix_tree.BLOCK_TOKENS", block_tokens)
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


@pytest.mark.parametrize("measure", ["logprob", "self_certainty"])
def test_the_chunked_head_is_the_head(
    backend: Any, monkeypatch: pytest.MonkeyPatch, measure: Measure
) -> None:
    monkeypatch.setattr("remote_trainer.inference.lm_head.CHUNK_BYTES", 4 * 400 * 3)  # three tokens
    head, generator = backend.model.lm_head, torch.Generator().manual_seed(0)
    hidden = torch.randn(10, head.weight.shape[1], generator=generator)
    target = torch.randint(0, 300, (10,), generator=generator)
    logp = head(hidden).log_softmax(-1)
    expected = {
        "logprob": logp.gather(-1, target[:, None])[:, 0],
        "self_certainty": -(logp + torch.tensor(float(logp.shape[-1])).log()).mean(-1),
    }[measure]
    assert torch.allclose(token_numbers(hidden, head, target, measure), expected, atol=1e-5)


# -- when not to ----------------------------------------------------------------------------------


def test_gradients_that_meet_in_one_place_are_added_in_order() -> None:
    """Whatever the threads: there is work for several, and what meets falls to all of them."""
    places = [0 if n % 20 == 0 else n for n in range(400)]
    generator = torch.Generator().manual_seed(0)
    hidden_LH = torch.randn(400, 256, generator=generator, requires_grad=True)
    gradient_NH = torch.randn(400, 256, generator=generator)
    in_order_LH = torch.zeros_like(hidden_LH)
    for place, gradient_H in zip(places, gradient_NH, strict=True):
        in_order_LH[place] = in_order_LH[place] + gradient_H
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for _ in range(20):
            found_NH = hidden_at(hidden_LH, torch.tensor(places))
            (summed_LH,) = torch.autograd.grad(found_NH, hidden_LH, gradient_NH)
            assert torch.equal(summed_LH, in_order_LH)
    finally:
        torch.set_num_threads(threads)


def test_plain_attention_packs(backend: Any) -> None:
    assert packing_blocker(backend.model, ragged()) is None


def test_a_model_that_keeps_what_it_is_told_from_its_attention_does_not_pack(backend: Any) -> None:
    forward = backend.model.base_model.forward
    backend.model.base_model.forward = lambda *a, shared=None, **k: forward(*a, **k)
    reason = packing_blocker(backend.model, ragged())
    assert reason is not None
    assert "log-probs differ by" in reason


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("layer_types", ["full_attention", "linear_attention"], "its layers use linear_attention"),
        ("sliding_window", 128, "sliding window"),
        ("logit_scale", 0.25, "log-probs differ by"),  # which a Llama does not know
        ("final_logit_softcapping", 30.0, "log-probs differ by"),
        ("_attn_implementation", "eager", "its attention runs as eager, not as sdpa"),
    ],
)
def test_what_packing_cannot_know_is_read_from_the_config(
    llama: Any, setting: str, value: Any, reason: str
) -> None:
    setattr(llama.model.config, setting, value)
    assert reason in str(packing_blocker(llama.model, ragged()))


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
        rows.append(backend.prompt_tokenizer.encode_row(Row(prompt, {}, f"f:{i}")))
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
    assert trainer._backend.shares_prefixes([], trainer.model.training)
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


def batch_of(prompts: list[TokenIds], completions: list[TokenIds]) -> dict[str, Any]:
    """The inputs of a loss as TRL makes them, advantages and reference made up."""
    wide, long = max(map(len, prompts)), max(map(len, completions))
    rows = len(prompts)
    batch = {
        "prompt_ids": torch.zeros(rows, wide, dtype=torch.long),
        "completion_ids": torch.zeros(rows, long, dtype=torch.long),
        "tool_mask": torch.ones(rows, long, dtype=torch.long),
    }
    batch["prompt_mask"] = torch.zeros_like(batch["prompt_ids"])
    batch["completion_mask"] = torch.zeros_like(batch["completion_ids"])
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        batch["prompt_ids"][row, wide - len(prompt) :] = torch.tensor(prompt)
        batch["prompt_mask"][row, wide - len(prompt) :] = 1
        batch["completion_ids"][row, : len(completion)] = torch.tensor(completion)
        batch["completion_mask"][row, : len(completion)] = 1
    draw = torch.Generator().manual_seed(3)
    batch["ref_per_token_logps"] = -5 * torch.rand(rows, long, generator=draw)
    batch["advantages"] = torch.randn(rows, generator=draw)
    batch["num_items_in_batch"] = batch["completion_mask"].sum()
    return batch


@pytest.mark.parametrize("row_tokens", [4096, 16])
def test_loss_and_gradients_are_the_stock_ones(
    trainer: Any, monkeypatch: pytest.MonkeyPatch, row_tokens: int
) -> None:
    """Several ragged groups at once; a row of 16 tokens is smaller than any group."""
    monkeypatch.setattr("remote_trainer.inference.packed_rows.ROW_TOKENS", row_tokens)
    ids = draw(4)
    prompts = [ids(6)] * 4 + [ids(11)] * 4
    batch = batch_of(prompts, [ids(n) for n in (5, 3, 5, 1, 2, 7, 4, 7)])
    trainer.current_gradient_accumulation_steps = 1

    def found(logps: Any) -> tuple[float, torch.Tensor]:
        monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", logps)
        trainer.model.zero_grad()
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        grads = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
        return loss.item(), torch.cat(grads).double()

    packed = found(trainer._get_per_token_logps_and_entropies)
    stock = found(MethodType(GRPOTrainer._get_per_token_logps_and_entropies, trainer))
    assert abs(packed[0] - stock[0]) < 1e-5
    assert stock[1].norm() > 0
    assert torch.cosine_similarity(packed[1], stock[1], dim=0) > 0.9999
    assert torch.allclose(packed[1].norm(), stock[1].norm(), rtol=1e-4)


def test_micro_batches_are_as_wide_as_their_own_longest_row() -> None:
    prompts, completions = [(1, 2), (1, 2, 3)], [(4,), (5, 6)]
    batch = batch_of(prompts, completions)
    wide = {
        name: torch.nn.functional.pad(value, (3, 0) if name.startswith("prompt_") else (0, 3))
        if value.dim() == 2
        else value
        for name, value in batch.items()
    }
    assert wide["prompt_ids"].shape == (2, 6)
    rows = continuations(
        torch.cat([wide["prompt_ids"], wide["completion_ids"]], dim=1),
        torch.cat([wide["prompt_mask"], wide["completion_mask"]], dim=1),
        wide["completion_ids"].size(1),
    )
    assert rows == [Continuation(p, c) for p, c in zip(prompts, completions, strict=True)]
    narrow = trimmed({**wide, ROWS: rows})
    assert narrow.pop(ROWS) == rows
    assert set(narrow) == set(batch)
    assert all(torch.equal(narrow[name], value) for name, value in batch.items())


# -- the pass of the update, made early -----------------------------------------------------------


def run_with(llama_folder: Path, folder: Path, **sections: Any) -> tuple[list[Any], Any]:
    """(lines of the log, adapter) of three updates scored by the policy, sampled in bfloat16."""
    training = {
        "num_generations": 4, "gradient_accumulation_steps": 1, "max_completion_length": 5,
        "per_device_train_batch_size": 2, "max_steps": 3, "learning_rate": 1e-2,
        "max_prompt_length": 40, "group_filter": {"min_std": 0},
        **sections.pop("training", {}),
    }  # fmt: skip
    reward = {"type": "inverse_loss", "truncated": "score", "scored_by": "policy"}
    text = {"data": {"train": "-"}, "reward": reward, "training": training, **sections}
    config = parse_config(json.dumps({"generation": {"dtype": "bfloat16"}, **text}), "c")
    backend = TransformersBackend.load(llama_folder, LoadSettings())
    backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj"), seed=0))
    prompts = [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(4)]
    rows = [
        backend.prompt_tokenizer.encode_row(Row(p, {}, f"f:{i}")) for i, p in enumerate(prompts)
    ]
    train(backend, RewardFunction(backend, config.reward, 5), rows, config, RunDir(folder))
    adapter = {n: p.detach() for n, p in backend.model.named_parameters() if "lora" in n}
    return read_jsonl(RunDir(folder).metrics), adapter


def test_a_policy_scored_reward_uses_the_pass_of_the_update(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[bool] = []
    real = shared_prefix.packed_hidden

    def counted(*args: Any) -> Any:
        passes.append(torch.is_grad_enabled())
        return real(*args)

    monkeypatch.setattr(shared_prefix, "packed_hidden", counted)
    early, adapter = run_with(llama_folder, tmp_path / "early")
    with_early = passes.count(True), passes.count(False)
    passes.clear()
    late, expected = run_with(llama_folder, tmp_path / "late", scoring={"reuse": "never"})
    assert [line["scores_from"]["update"] for line in early] == [8, 8, 8]
    assert [line["scores_from"]["pass"] for line in late] == [8, 8, 8]
    # One pass an update less, all without gradient; the first score compares rows with themselves.
    assert with_early[0] == passes.count(True) == 3
    assert passes.count(False) - with_early[1] == 3
    for one, other in zip(early, late, strict=True):
        for key in ("reward", "kl", "loss", "grad_norm", "entropy", "sampler_gap"):
            assert one[key] == pytest.approx(other[key], abs=1e-5)
    assert all(torch.allclose(adapter[n], p, atol=1e-5) for n, p in expected.items())


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}},
        {"training": {"num_iterations": 2, "save_steps": 2, "max_steps": 4}},
        {"generation": {"dtype": "bfloat16", "temperature": 0.8}},
    ],
)
def test_where_the_update_is_another_pass_the_reward_makes_its_own(
    llama_folder: Path, tmp_path: Path, sections: dict[str, Any]
) -> None:
    lines, _ = run_with(llama_folder, tmp_path, **sections)
    assert lines[0]["scores_from"] == {"sampling": 0, "kl_term": 0, "update": 0, "pass": 8}


def test_a_routers_loss_is_another_pass(tmp_path: Path) -> None:
    """TRL asks for it beside the log-probs, which a pass that was made early does not know."""
    lines, adapter = run_with(make_family("qwen3_moe", tmp_path / "m"), tmp_path / "run")
    assert [line["scores_from"]["update"] for line in lines] == [0, 0, 0]
    assert any(p.abs().max() > 0 for name, p in adapter.items() if "lora_B" in name)


def test_the_log_tells_how_far_sampling_was_from_the_policy(
    llama_folder: Path, tmp_path: Path
) -> None:
    for dtype, low, high in (("float32", 0, 1e-4), ("bfloat16", 1e-4, 0.5)):
        lines, _ = run_with(llama_folder, tmp_path / dtype, generation={"dtype": dtype})
        assert all(low <= line["sampler_gap"] < high for line in lines)


# -- two processes --------------------------------------------------------------------------------

WORKER = """
import json, os, sys
from collections import Counter
from pathlib import Path
import torch
from remote_trainer.config import parse_config
from remote_trainer.records import AdapterSettings, LoadSettings
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.records import EncodedRow, Generation, Row
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer.loop import train

model, folder, world = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rank = int(os.environ.get("RANK", 0))

class Fixed(TransformersBackend):
    # The same completions whoever asks, so that one process and two do the same work.
    def generate(self, prompts, sampling):
        seen, drawn = Counter(), []
        for prompt in prompts:
            k = seen[prompt]
            ids = tuple(6 + (7 * sum(prompt) + 31 * k + 13 * t) % 300 for t in range(3 + k % 3))
            drawn.append(Generation(ids, (0.0,) * len(ids), (0.0,) * len(ids), False))
            seen[prompt] += 1
        return drawn

training = {
    "num_generations": 4, "gradient_accumulation_steps": 2 // world, "max_completion_length": 5,
    "max_prompt_length": 40, "max_steps": 3, "learning_rate": 1e-2, "save_steps": 100,
    "group_filter": {"min_std": 0},
}
text = {
    "data": {"train": "-"}, "training": training, "scoring": {"reuse": "never"},
    "reward": {"type": "inverse_loss", "truncated": "score"},
}
config = parse_config(json.dumps(text), "c")
backend = Fixed.load(model, LoadSettings())
backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj"), seed=0))
rows = []
for i in range(6):
    prompt = [{"role": "user", "content": f"What is {i} + {i}?"}]
    rows.append(backend.prompt_tokenizer.encode_row(Row(prompt, {}, f"f:{i}")))
home = RunDir(folder / f"rank{rank}")
if rank == 0:
    home.root.mkdir()
train(backend, RewardFunction(backend, config.reward, 5), rows, config, home)
assert backend.shares_prefixes([], training=True)
adapter = {n: p.tolist() for n, p in backend.model.named_parameters() if "lora" in n}
(folder / f"adapter{rank}.json").write_text(json.dumps(adapter))
"""


@pytest.mark.slow
@pytest.mark.long  # tests/unit/trainer/test_many_processes.py trains two processes in the gate
def test_two_processes_train_what_one_trains(llama_folder: Path, tmp_path: Path) -> None:
    """The packed pass goes through the wrapper, so gradients are averaged over processes."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)

    def adapters(world: int) -> list[dict[str, torch.Tensor]]:
        folder = tmp_path / str(world)
        folder.mkdir()
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        command = [sys.executable, *launch, script, llama_folder, folder, str(world)]
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True, text=True, check=False, timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found = [json.loads((folder / f"adapter{r}.json").read_text()) for r in range(world)]
        return [{n: torch.tensor(v) for n, v in one.items()} for one in found]

    [alone], both = adapters(1), adapters(2)
    assert all(torch.equal(both[0][n], value) for n, value in both[1].items())
    moved = torch.cat([v.flatten() for n, v in alone.items() if "lora_B" in n])
    assert moved.abs().max() > 1e-3
    for name, value in alone.items():
        assert torch.allclose(both[0][name], value, atol=1e-4), name
