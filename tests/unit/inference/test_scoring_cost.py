"""What rewards cost: passes through the model, and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.inference.row_paths import RowPaths
from remote_trainer.records import (
    AdapterSettings,
    Continuation,
    LoadSettings,
    Row,
    Sampling,
    ScoreRequest,
)
from remote_trainer.rewards import REWARDS, RewardFunction
from remote_trainer.rewards.reference_answer import CONNECTOR
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer.loop import train

INVERSE = {"type": "inverse_loss", "truncated": "score", "scored_by": "policy"}
RANDOM = {"type": "random"}
COMPLETIONS = 8


def config_with(reward: Any, **sections: Any) -> RunConfig:
    training = {
        "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": 2,
        "max_prompt_length": 40, "max_completion_length": 6, "max_steps": 2, "save_steps": 2,
        "group_filter": {"min_std": 0},
    }  # fmt: skip
    training |= sections.pop("training", {})
    # On a processor that computes in bfloat16 sampling would, and its numbers would not be reused.
    generation = {"dtype": "float32", **sections.pop("generation", {})}
    text = {
        "data": {"train": "-"}, "reward": reward, "training": training, "generation": generation,
        **sections,
    }  # fmt: skip
    return parse_config(json.dumps(text), "c")


def trained(
    model: Path, folder: Path, config: RunConfig, cut: bool = True
) -> tuple[int, list[dict[str, Any]]]:
    """(passes through the model, lines of the log) of a run of two updates.

    ``cut``: completions that reach the limit, as a random model's do, count as truncated.
    """
    backend = TransformersBackend.load(model, LoadSettings())
    backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj"), seed=0))
    # Each looks once at the first rows, which takes passes of its own.
    for training in (False, True):
        assert backend.shares_prefixes([Continuation((1, 5), (6, 7))], training)
    backend.generate([(1, 5)], Sampling(1))
    passes = []
    backbone = backend.model.get_base_model().base_model
    backbone.register_forward_pre_hook(lambda *_: passes.append(1))
    prompts = [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(4)]
    rows = [
        backend.prompt_tokenizer.encode_row(Row(p, {"answer": "4"}, f"f:{i}"))
        for i, p in enumerate(prompts)
    ]
    limit = config.training.max_completion_length if cut else None
    reward = RewardFunction(backend, config.reward, limit)
    train(backend, reward, rows, config, RunDir(folder))
    return len(passes), read_jsonl(RunDir(folder).metrics)


@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_policy_scored_inverse_loss_costs_no_pass(
    llama_folder: Path, tmp_path: Path, beta: float
) -> None:
    """As many passes as under a reward that never asks the model; `never` costs one an update."""
    training = {"beta": beta, "max_steps": 1}
    free, _ = trained(llama_folder, tmp_path / "free", config_with(RANDOM, training=training))
    config = config_with(INVERSE, training=training)
    passes, lines = trained(llama_folder, tmp_path / "reused", config)
    assert passes == free
    assert lines[0]["scores_from"] == {
        "sampling": COMPLETIONS,
        "kl_term": 0,
        "update": 0,
        "pass": 0,
    }
    config = config_with(INVERSE, training=training, scoring={"reuse": "never"})
    passes, again = trained(llama_folder, tmp_path / "scored", config)
    assert passes == free + 1
    assert again[0]["scores_from"] == {
        "sampling": 0,
        "kl_term": 0,
        "update": 0,
        "pass": COMPLETIONS,
    }
    assert lines[0]["reward"] == pytest.approx(again[0]["reward"], abs=1e-5)


def test_reference_scored_inverse_loss_costs_no_pass_but_the_kl_terms(
    llama_folder: Path, tmp_path: Path
) -> None:
    reward = {**INVERSE, "scored_by": "reference"}
    one = {"max_steps": 1}  # later updates sample other lengths, so passes cannot be compared
    free, _ = trained(llama_folder, tmp_path / "free", config_with(RANDOM, training=one))
    passes, _ = trained(llama_folder, tmp_path / "one", config_with(reward, training=one))
    assert passes == free
    _, lines = trained(llama_folder, tmp_path / "kl", config_with(reward))
    assert lines[1]["scores_from"] == {
        "sampling": 0,
        "kl_term": COMPLETIONS,
        "update": 0,
        "pass": 0,
    }
    _, scored = trained(
        llama_folder, tmp_path / "pass", config_with(reward, scoring={"reuse": "never"})
    )
    assert scored[1]["reward"] == pytest.approx(lines[1]["reward"], abs=1e-5)
    without_kl = config_with(reward, training={"beta": 0})
    _, lines = trained(llama_folder, tmp_path / "beta0", without_kl)
    assert lines[1]["scores_from"] == {
        "sampling": 0,
        "kl_term": 0,
        "update": 0,
        "pass": COMPLETIONS,
    }


def test_answers_ride_along_in_the_pass_of_the_kl_term(llama_folder: Path, tmp_path: Path) -> None:
    """One packed pass holds prompts, completions and the answers behind them."""
    reward = {"type": "answer_likelihood", "scored_by": "reference", "gate": []}
    one = {"max_steps": 1}
    free, _ = trained(llama_folder, tmp_path / "free", config_with(RANDOM, training=one), cut=False)
    passes, lines = trained(
        llama_folder, tmp_path / "kl", config_with(reward, training=one), cut=False
    )
    assert passes == free
    asked = lines[0]["scores_from"]
    assert asked["kl_term"] > 0
    assert asked["pass"] == 0
    never = config_with(reward, training=one, scoring={"reuse": "never"})
    passes, scored = trained(llama_folder, tmp_path / "pass", never, cut=False)
    assert passes == free + 1
    assert scored[0]["reward"] == pytest.approx(lines[0]["reward"], abs=1e-6)
    for key in ("kl", "loss", "grad_norm"):
        assert scored[0][key] == pytest.approx(lines[0][key], abs=1e-6)


def test_the_kl_terms_logprobs_are_not_used_at_another_temperature(
    llama_folder: Path, tmp_path: Path
) -> None:
    """TRL computes them at sampling temperature; sampling's own are recorded at 1."""
    hot = {"temperature": 1.5}
    reference = config_with({**INVERSE, "scored_by": "reference"}, generation=hot)
    _, lines = trained(llama_folder, tmp_path / "reference", reference)
    assert lines[0]["scores_from"]["kl_term"] == 0
    _, lines = trained(llama_folder, tmp_path / "policy", config_with(INVERSE, generation=hot))
    assert lines[0]["scores_from"]["sampling"] == COMPLETIONS
    never = config_with(INVERSE, generation=hot, scoring={"reuse": "never"})
    _, scored = trained(llama_folder, tmp_path / "scored", never)
    assert lines[0]["reward"] == pytest.approx(scored[0]["reward"], abs=1e-5)


@pytest.mark.parametrize(("reuse", "used"), [("auto", 0), ("always", COMPLETIONS)])
def test_sampling_in_another_dtype_is_used_only_when_forced(
    llama_folder: Path, tmp_path: Path, reuse: str, used: int
) -> None:
    config = config_with(
        INVERSE,
        scoring={"reuse": reuse},
        training={"max_steps": 1},
        generation={"dtype": "bfloat16"},
    )
    _, lines = trained(llama_folder, tmp_path, config)
    assert lines[0]["scores_from"]["sampling"] == used
    assert lines[0]["scores_from"]["pass"] == COMPLETIONS - used


def test_a_forced_shortest_length_is_reused_too(llama_folder: Path, tmp_path: Path) -> None:
    """Sampling then forbids the end of sequence; what it records is of the model all the same."""
    settings: dict[str, Any] = {
        "generation": {"min_new_tokens": 3}, "training": {"max_steps": 1},
    }  # fmt: skip
    config = config_with(INVERSE, **settings)
    _, lines = trained(llama_folder, tmp_path / "reused", config)
    assert lines[0]["scores_from"] == {
        "sampling": COMPLETIONS,
        "kl_term": 0,
        "update": 0,
        "pass": 0,
    }
    config = config_with(INVERSE, scoring={"reuse": "never"}, **settings)
    _, scored = trained(llama_folder, tmp_path / "scored", config)
    assert lines[0]["reward"] == pytest.approx(scored[0]["reward"], abs=1e-5)


def test_sampling_fields_of_trl_leave_sampling_to_trl(llama_folder: Path, tmp_path: Path) -> None:
    config = config_with(INVERSE, training={"trl": {"repetition_penalty": 1.1}, "max_steps": 1})
    _, lines = trained(llama_folder, tmp_path, config)
    assert lines[0]["scores_from"] == {
        "sampling": 0,
        "kl_term": 0,
        "update": 0,
        "pass": COMPLETIONS,
    }


@pytest.mark.parametrize(("packed", "expected"), [(False, [3]), (True, [1])])
def test_requests_that_begin_alike_share_a_row(
    llama: Any, monkeypatch: pytest.MonkeyPatch, packed: bool, expected: list[int]
) -> None:
    """Nine requests are three rows, and packed rows share the prompt, too."""
    monkeypatch.setattr(RowPaths, "shares", lambda *_: packed)
    names = ("inverse_loss", "self_certainty", "supervised")
    rewards = [REWARDS[name].model_validate({"scored_by": "policy"}) for name in names]
    function = RewardFunction(llama, rewards)
    shapes: list[tuple[int, int]] = []
    llama.model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    said = ["5", "It is 5.", "7"]
    function(prompts=["What is 2 + 3?"] * 3, completions=said, answer=["5"] * 3)
    assert [rows for rows, _ in shapes] == expected
    encode, prompt = (
        llama.prompt_tokenizer.encode,
        llama.prompt_tokenizer.encode_prompt("What is 2 + 3?"),
    )
    behind = [len(encode(text)) + len(encode(CONNECTOR)) for text in said]
    if packed:
        assert shapes[0][1] == len(prompt) + sum(behind)
    else:
        assert shapes[0][1] == len(prompt) + max(behind)


@pytest.mark.parametrize(
    ("packed", "told"),
    [
        (False, [(5, 11), (9, 11), (11, 11)]),  # four inputs of four ids make a batch of 16
        (True, [(8, 11), (11, 11)]),  # two shared ids and two more each: seven in a row
    ],
)
def test_progress_is_told(
    llama: Any, monkeypatch: pytest.MonkeyPatch, packed: bool, told: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(RowPaths, "shares", lambda *_: packed)
    requests = [ScoreRequest.of((1, 5, i), (7, 8)) for i in range(10, 20)]
    llama.max_tokens_per_batch = 16
    seen: list[tuple[int, int]] = []
    llama.score([*requests, ScoreRequest.of((1,), ())], lambda *counts: seen.append(counts))
    assert seen == told


MEMORY = """
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from remote_trainer.inference.scoring import score_requests
from remote_trainer.models.attention import use_shared_attention
from remote_trainer.records import ScoreRequest

def status(name):
    line = next(l for l in open("/proc/self/status") if l.startswith(name))
    return int(line.split()[1]) / 1024

torch.manual_seed(0)
torch.set_num_threads(1)
model = LlamaForCausalLM(LlamaConfig(
    vocab_size=32000, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2,
)).eval()

def requests(count):
    ids = torch.randint(3, 32000, (count, 64)).tolist()
    return [ScoreRequest.of(tuple(row[:16]), tuple(row[16:])) for row in ids]

def peak(count):
    rows = requests(count)
    open("/proc/self/clear_refs", "w").write("5")  # forget the highest mark so far
    before = status("VmRSS")
    score_requests(model, rows, 0, 1024, packed=packed)
    return status("VmHWM") - before

packed = sys.argv[2] == "packed"
use_shared_attention(model)
score_requests(model, requests(4), 0, 1024, packed=packed)  # load what loads once
print(peak(int(sys.argv[1])))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("way", ["padded", "packed"])
def test_memory_is_bounded_by_the_setting_not_by_the_rows(way: str) -> None:
    """1024 tokens at once: 16 rows of 64 ids are one batch, eight times as many are eight."""
    # What is freed goes back at once, so that the mark shows what was held and not what lay about.
    frugal = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    peaks = []
    for rows in (16, 128):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(rows), way],
            capture_output=True, text=True, check=True, env={**os.environ, **frugal},
        )  # fmt: skip
        peaks.append(float(done.stdout))
    assert peaks[0] > 30, "MB; logits of 16 x 48 positions x 32000 ids are 94 MB, a chunk's 24 MB"
    assert peaks[1] / peaks[0] <= 1.2, peaks
