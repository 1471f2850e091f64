"""Groups: which have signal, what a floor is worth, and what leaves the loss."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
import torch

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.config.schema import GroupFilterSettings
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.records import (
    AdapterSettings,
    EncodedRow,
    Generation,
    LoadSettings,
    RewardResult,
    Row,
    Sampling,
    TokenIds,
)
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer import checkpoint
from remote_trainer.trainer.groups import GroupFilter, signal_values, spread
from remote_trainer.trainer.grpo import RewardTrainer
from remote_trainer.trainer.loop import train
from remote_trainer.trainer.run_log import RunLog

G = 4


def group(*rewards: float | None, invalid: tuple[int, ...] = ()) -> list[RewardResult]:
    return [RewardResult(reward, {}, invalid=i in invalid) for i, reward in enumerate(rewards)]


# -- numbers ------------------------------------------------------------------------------------


def test_a_floor_does_not_flatten_its_group() -> None:
    judged = group(-1.0, -1.2, -10.0, -1.4, invalid=(2,))
    assert spread(judged) == pytest.approx(0.2)
    assert signal_values(judged) == [-1.0, -1.2, -1.4, -1.4]  # with the worst measured one
    assert [j.reward for j in judged] == [-1.0, -1.2, -10.0, -1.4]


def test_a_wrong_answer_is_no_floor() -> None:
    judged = group(0.0, 1.0, 0.0, 0.0)
    assert spread(judged) == pytest.approx(0.5)
    assert signal_values(judged) == [0.0, 1.0, 0.0, 0.0]


def test_one_measured_completion_is_compared_with_the_floors() -> None:
    judged = group(0.0, 0.3, 0.0, 0.0, invalid=(0, 2, 3))
    assert spread(judged) == pytest.approx(stdev([0.0, 0.3, 0.0, 0.0]))
    assert signal_values(judged) == [0.0, 0.3, 0.0, 0.0]


def test_without_differences_or_judgements_there_is_no_spread() -> None:
    assert spread(group(0.4, 0.4, 0.0, invalid=(2,))) == 0.0
    assert spread(group(0.0, 0.0, invalid=(0, 1))) == 0.0
    assert spread(group(None, None)) is None
    assert signal_values(group(None, 0.5, 0.7)) == [None, 0.5, 0.7]


def test_the_filter_is_absolute_by_default() -> None:
    keeps = GroupFilter(GroupFilterSettings())
    for _ in range(20):  # the running average never matters
        assert keeps.keep([0.0, 0.0009, 0.0011, None, 5.0]) == [False, False, True, False, True]
    assert GroupFilter(GroupFilterSettings(min_std=0)).keep([0.0, 1e-9]) == [False, True]


def test_a_share_of_the_running_average_is_an_option() -> None:
    settings = GroupFilterSettings(min_std=0.0, average_share=0.5, average_decay=0.9)
    keeps = GroupFilter(settings)
    for _ in range(5):  # warm-up: only the absolute limit counts
        assert keeps.keep([0.4, 0.2, 0.01]) == [True, True, True]
    mean = (0.4 + 0.2 + 0.01) / 3
    assert keeps.average == pytest.approx(mean)
    assert keeps.keep([0.5 * mean + 1e-6, 0.5 * mean - 1e-6, None]) == [True, False, False]
    assert keeps.average == pytest.approx(0.9 * mean + 0.1 * 0.5 * mean)
    copy = GroupFilter(settings)
    copy.restore(json.loads(json.dumps(keeps.state())))
    assert copy == keeps


# -- training -----------------------------------------------------------------------------------


class Scripted(RewardFunction):
    """Rewards that the test decides: one list of values per update, floors at -10."""

    script: list[list[float | None]]

    def judge(self, samples: Any, *_: Any, **__: Any) -> list[RewardResult]:
        values = self.script.pop(0)
        assert len(values) == len(samples)
        return [RewardResult(v, {"scripted": v}, invalid=v == -10.0) for v in values]


def config_with(**training: Any) -> RunConfig:
    settings = {
        "learning_rate": 1e-2, "num_generations": G, "gradient_accumulation_steps": 2,
        "max_prompt_length": 40, "max_completion_length": 5, "max_steps": 1, "save_steps": 1,
        **training,
    }  # fmt: skip
    return parse_config(json.dumps({"data": {"train": "-"}, "training": settings}), "c")


def load(folder: Path) -> TransformersBackend:
    backend = TransformersBackend.load(folder, LoadSettings())
    backend.add_adapter(AdapterSettings(4, 8, 0.0, ("q_proj", "v_proj"), seed=0))
    return backend


def rows_for(backend: TransformersBackend) -> list[EncodedRow]:
    prompts = [[{"role": "user", "content": f"What is {i} + {i}?"}] for i in range(2)]
    return [
        backend.prompt_tokenizer.encode_row(Row(p, {}, f"f:{i}")) for i, p in enumerate(prompts)
    ]


def run(
    model: Path, folder: Path, script: Sequence[Sequence[float | None]], **training: Any
) -> TransformersBackend:
    backend, config = load(model), config_with(max_steps=len(script), **training)
    reward = Scripted(backend, config.reward, 5)
    reward.script = [list(values) for values in script]
    train(backend, reward, rows_for(backend), config, RunDir(folder))
    return backend


def adapter_of(backend: TransformersBackend) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in backend.model.named_parameters() if "lora" in n}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


SPREAD: list[float | None] = [1.0, 2.0, 3.0, 4.0]
SAME: list[float | None] = [2.0, 2.0, 2.0, 2.0]


def test_an_update_without_signal_changes_no_weight_and_no_moment(
    llama_folder: Path, tmp_path: Path
) -> None:
    one = run(llama_folder, tmp_path / "one", [SPREAD + SPREAD])
    more = run(llama_folder, tmp_path / "more", [SPREAD + SPREAD, SAME + SAME, [None] * 8])
    assert not equal(adapter_of(one), adapter_of(load(llama_folder)))
    assert equal(adapter_of(one), adapter_of(more))  # momentum did not push on either
    states = [
        (RunDir(tmp_path / name).checkpoint(step) / "optimizer.safetensors").read_bytes()
        for name, step in (("one", 1), ("more", 3))
    ]
    assert states[0] == states[1]
    lines = read_jsonl(RunDir(tmp_path / "more").metrics)
    assert [line["skipped_share"] for line in lines] == [0, 1, 1]
    assert [line["filtered_share"] for line in lines] == [0, 1, 1]
    assert [line["unjudged_share"] for line in lines] == [0, 0, 1]
    assert [line["grad_norm"] for line in lines[1:]] == [0, 0]
    assert lines[0]["kl"] is not None
    assert [line["kl"] for line in lines[1:]] == [None, None]
    assert [line["reward"] for line in lines] == [2.5, 2.0, None]


def test_three_updates_without_signal_are_told_once(
    llama_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told(script: Sequence[Sequence[float | None]], name: str) -> int:
        caplog.clear()
        with caplog.at_level("WARNING"):
            run(llama_folder, tmp_path / name, script)
        return sum("had no group with signal" in r.getMessage() for r in caplog.records)

    nothing = SAME + SAME
    assert told([nothing, nothing, SPREAD + SAME, nothing], "broken") == 0
    assert told([nothing] * 5, "stuck") == 1


def test_a_floor_is_reported_and_not_trained_on(llama_folder: Path, tmp_path: Path) -> None:
    run(llama_folder, tmp_path, [[1.0, 2.0, 3.0, -10.0] * 2])
    line = read_jsonl(RunDir(tmp_path).metrics)[0]
    assert line["reward"] == -1.0
    assert line["floored_share"] == 0.25
    assert [c["reward"] for c in read_jsonl(RunDir(tmp_path).completions_file(1))][3] == -10.0


def trainer_for(model: Path, folder: Path, values: list[float | None], **training: Any) -> Any:
    backend, config = load(model), config_with(**training)
    with torch.no_grad():  # away from the reference, so that the KL term has a gradient
        for name, parameter in backend.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator()) * 0.1)
    reward = Scripted(backend, config.reward, 5)
    reward.script = [values]
    log = RunLog(RunDir(folder), lambda line, updates: None)
    return RewardTrainer(backend, reward, rows_for(backend), config, RunDir(folder), log)


def gradient_of(trainer: Any, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Gradient of one whole update on the given rows."""
    model = trainer.model
    model.train()
    model.zero_grad()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    for _ in range(trainer.args.gradient_accumulation_steps):
        trainer.compute_loss(model, trainer._prepare_inputs(inputs)).backward()
        trainer._step += 1
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
        if "lora" in n
    }


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "bnpo"])
def test_a_filtered_group_leaves_loss_kl_and_divisor(
    llama_folder: Path, tmp_path: Path, loss_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update on one group with signal and one without is the update on the first alone."""
    rows = [{"prompt": p.row.prompt, "row": i} for i, p in enumerate(rows_for(load(llama_folder)))]
    both = trainer_for(
        llama_folder, tmp_path / "both", SPREAD + SAME, loss_type=loss_type, beta=0.5
    )
    alone = trainer_for(
        llama_folder, tmp_path / "alone", SPREAD, loss_type=loss_type, beta=0.5,
        gradient_accumulation_steps=1,
    )  # fmt: skip
    completions = [[40 + i, 50 + i, 60 + i, 2][: 2 + i % 3] for i in range(2 * G)]

    def generate(prompts: Sequence[TokenIds], sampling: Sampling) -> list[Generation]:
        drawn = [tuple(ids) for ids in completions[: len(prompts)]]
        return [Generation(ids, (0.0,) * len(ids), (0.0,) * len(ids), True) for ids in drawn]

    for trainer in (both, alone):
        monkeypatch.setattr(trainer._backend, "generate", generate)
    # The sampler hands over every prompt num_generations times.
    found = gradient_of(both, [rows[0]] * G + [rows[1]] * G)
    expected = gradient_of(alone, [rows[0]] * G)
    assert max(g.abs().max() for g in expected.values()) > 1e-3
    for name, gradient in expected.items():
        assert torch.allclose(found[name], gradient, atol=1e-5), name


def test_the_filters_average_survives_a_checkpoint(llama_folder: Path, tmp_path: Path) -> None:
    settings = {"group_filter": {"average_share": 0.5}, "save_steps": 2}
    script = [[*SPREAD, 1.0, 1.1, 1.2, 1.3]] * 8
    run(llama_folder, tmp_path / "whole", script, **settings)
    whole = read_jsonl(RunDir(tmp_path / "whole").metrics)
    assert [line["filtered_share"] for line in whole] == [0] * 5 + [0.5] * 3
    run(llama_folder, tmp_path / "half", script[:4], **settings)
    backend, config = load(llama_folder), config_with(max_steps=8, **settings)
    reward = Scripted(backend, config.reward, 5)
    reward.script = script[4:]
    start = checkpoint.newest_checkpoint(RunDir(tmp_path / "half"))
    train(backend, reward, rows_for(backend), config, RunDir(tmp_path / "half"), start)
    half = read_jsonl(RunDir(tmp_path / "half").metrics)
    keys = ("step", "filtered_share", "kl", "reward", "loss")
    assert [[line[k] for k in keys] for line in half] == [[line[k] for k in keys] for line in whole]
