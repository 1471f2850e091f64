"""Training on the tiny model: the log, the checkpoints, and that resuming is the same run."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from remote_trainer.config import RunConfig, load_config, parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.errors import NonFiniteLossError, RunInterrupted, UserInputError
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.records import AdapterSettings, EncodedRow, LoadSettings, Row
from remote_trainer.rewards import RewardFunction, create_reward_function
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer import checkpoint, grpo, rollout, run_log
from remote_trainer.trainer.grpo import RewardTrainer
from remote_trainer.trainer.loop import train
from remote_trainer.trainer.run_log import OnLine, RunLog
from remote_trainer.trainer.trl_settings import (
    check_trl_settings,
    grpo_config_fields,
    trl_settings,
)

CONFIGS = Path(__file__).parents[3] / "configs"
CONTRACT = [
    "step", "reward", "reward_std", "kl", "entropy", "completion_tokens_mean", "clipped_share",
    "distinct_3", "duplicate_share", "loop_share", "seconds_generate", "seconds_score",
    "seconds_update", "seconds_step", "tokens_per_second", "peak_memory_mb",
]  # fmt: skip
TIMES = {k for k in CONTRACT if k.startswith("seconds_")} | {
    "seconds_probe",
    "tokens_per_second",
    "peak_memory_mb",
}
# A random model rarely ends by itself, and where all are cut there is nothing to learn from.
SCORED = {"type": "inverse_loss", "truncated": "score"}
TARGETS = ("q_proj", "v_proj", "down_proj")


def config_with(**training: Any) -> RunConfig:
    settings = {
        "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": 2,
        "max_prompt_length": 40, "max_completion_length": 6, "max_steps": 5, "save_steps": 2,
        "group_filter": {"min_std": 0},  # a random model's rewards differ by less than the default
        **training,
    }  # fmt: skip
    return parse_config(
        json.dumps({"data": {"train": "-"}, "reward": SCORED, "training": settings}),
        "c",
    )


def rows_for(backend: TransformersBackend, count: int = 6) -> list[EncodedRow]:
    rows = []
    for i in range(count):
        prompt = [{"role": "user", "content": f"What is {i} + {i}?"}]
        row = Row(prompt, {"answer": f"{2 * i} apples"}, f"f:{i}")
        rows.append(backend.prompt_tokenizer.encode_row(row))
    return rows


def load(folder: Path) -> TransformersBackend:
    backend = TransformersBackend.load(folder, LoadSettings())
    backend.add_adapter(AdapterSettings(4, 8, 0.0, TARGETS, seed=0))
    return backend


def run(
    model: Path,
    folder: Path,
    config: RunConfig,
    resume_from: Path | None = None,
    on_line: OnLine = lambda line, updates: None,
) -> TransformersBackend:
    backend = load(model)
    reward = RewardFunction(backend, config.reward, config.training.max_completion_length)
    rows = rows_for(backend)
    train(
        backend,
        reward,
        rows,
        config,
        RunDir(folder),
        resume_from,
        (),
        ProgressCallbacks(line=on_line),
    )
    return backend


def comparable(folder: Path) -> list[dict[str, Any]]:
    lines = read_jsonl(RunDir(folder).metrics)
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def adapter_of(backend: TransformersBackend) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in backend.model.named_parameters() if "lora" in n}


@pytest.fixture(scope="module")
def finished(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run of five updates, for every test that only looks."""
    folder = tmp_path_factory.mktemp("run")
    seen: list[Any] = []
    backend = run(
        llama_folder,
        folder,
        config_with(),
        on_line=lambda line, updates: seen.append((line, updates)),
    )
    return folder, backend, seen


def test_every_update_has_a_line_with_every_key(finished: Any) -> None:
    folder, _, seen = finished
    lines = read_jsonl(RunDir(folder).metrics)
    assert seen == [(line, 5) for line in lines]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        assert set(CONTRACT) <= set(line)
        assert line["distinct_3"] is None  # 8 completions of 6 tokens hold no 100 trigrams
        assert 0 < line["seconds_generate"] + line["seconds_score"] < line["seconds_step"]
        parts = line["seconds_generate"] + line["seconds_score"] + line["seconds_update"]
        assert parts == pytest.approx(line["seconds_step"])
        numbers = set(CONTRACT) - {"distinct_3"}
        assert all(math.isfinite(line[key]) for key in numbers)
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-6)  # the adapter starts as zero
    assert lines[-1]["kl"] > 1e-5


def test_lines_agree_with_the_completions_beside_them(finished: Any) -> None:
    folder, _, _ = finished
    for line in read_jsonl(RunDir(folder).metrics):
        completions = read_jsonl(RunDir(folder).completions_file(line["step"]))
        assert len(completions) == 8
        rewards = [c["reward"] for c in completions]
        assert line["reward"] == pytest.approx(sum(rewards) / 8, abs=1e-6)
        assert line["reward_std"] == pytest.approx(statistics.stdev(rewards))
        assert line["rewards"] == {"inverse_loss": pytest.approx(sum(rewards) / 8)}
        assert line["completion_tokens_mean"] == sum(c["tokens"] for c in completions) / 8
        assert line["clipped_share"] == sum(not c["ended"] for c in completions) / 8
        assert line["skipped_share"] == line["floored_share"] == line["filtered_share"] == 0
        assert all(c["in_loss"] for c in completions)
        assert len({json.dumps(c["prompt"]) for c in completions}) == 2


def test_training_moves_the_adapter_and_nothing_else(finished: Any, llama_folder: Path) -> None:
    _, trained, _ = finished
    fresh = load(llama_folder)
    before = dict(fresh.model.named_parameters())
    for name, parameter in trained.model.named_parameters():
        if "lora_B" in name:
            assert parameter.abs().max() > 0
        elif "lora" not in name:
            assert torch.equal(parameter, before[name]), name
    assert set(trained.model.peft_config) == {"default"}  # no copy of the adapter as reference


def test_no_file_of_a_run_is_a_pickle(finished: Any) -> None:
    folder, _, _ = finished
    kinds = {file.suffix for file in folder.rglob("*") if file.is_file()}
    assert kinds == {".json", ".jsonl", ".safetensors"}


def test_checkpoints_are_whole_and_few(finished: Any) -> None:
    folder, _, _ = finished
    found = RunDir(folder).complete_checkpoints()
    assert [path.name for path in found] == ["step-000004", "step-000005"]
    manifest = checkpoint.verify(found[-1])
    assert manifest["step"] == 5
    assert set(manifest["files"]) == {
        "adapter.safetensors", "optimizer.safetensors", "rng.safetensors", "state.json",
        "trainer_state.json", "kept-safe.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["adapter.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_refused_by_name(finished: Any, tmp_path: Path, name: str) -> None:
    import shutil

    folder, _, _ = finished
    copy = RunDir(tmp_path / "copy")
    shutil.copytree(folder, copy.root)
    newest = copy.complete_checkpoints()[-1]
    content = bytearray((newest / name).read_bytes())
    content[-3] ^= 1
    (newest / name).write_bytes(content)
    with pytest.raises(UserInputError, match=f"{name}: missing or changed since it was written"):
        checkpoint.verify(newest)
    older = checkpoint.newest_checkpoint(copy)
    assert older is not None
    assert older.name == "step-000004"


def test_a_resumed_run_is_the_same_run(finished: Any, llama_folder: Path, tmp_path: Path) -> None:
    folder, whole, _ = finished
    config = config_with()

    class Killed(Exception):
        pass

    def kill(line: dict[str, Any], updates: int) -> None:
        if line["step"] == 3:
            raise Killed("in update 3")

    with pytest.raises(Killed, match="in update 3"):
        run(llama_folder, tmp_path, config, on_line=kill)
    start = checkpoint.newest_checkpoint(RunDir(tmp_path))
    assert start is not None
    assert start.name == "step-000002"
    resumed = run(llama_folder, tmp_path, config, resume_from=start)
    assert comparable(tmp_path) == comparable(folder)
    theirs = adapter_of(whole)
    assert all(torch.equal(p, theirs[n]) for n, p in adapter_of(resumed).items())


def test_updates_that_share_completions_resume_exactly(llama_folder: Path, tmp_path: Path) -> None:
    config = config_with(num_iterations=2, max_steps=6, save_steps=2)
    run(llama_folder, tmp_path / "whole", config)
    whole = comparable(tmp_path / "whole")
    assert [line["clipped_share"] is None for line in whole] == [False, True] * 3

    class Killed(Exception):
        pass

    def kill(line: dict[str, Any], updates: int) -> None:
        if line["step"] == 5:
            raise Killed("in update 5")

    with pytest.raises(Killed, match="in update 5"):
        run(llama_folder, tmp_path / "killed", config, on_line=kill)
    start = RunDir(tmp_path / "killed").checkpoint(4)
    run(llama_folder, tmp_path / "killed", config, resume_from=start)
    assert comparable(tmp_path / "killed") == whole


def test_a_line_for_several_updates_holds_their_means(
    finished: Any, llama_folder: Path, tmp_path: Path
) -> None:
    folder, _, _ = finished
    run(llama_folder, tmp_path, config_with(logging_steps=2))
    single, pairs = comparable(folder), comparable(tmp_path)
    assert [line["step"] for line in pairs] == [2, 4, 5]  # the last update is always logged
    for i, line in enumerate(pairs[:2]):
        for key in ("reward", "kl", "entropy", "completion_tokens_mean", "clipped_share"):
            both = [single[2 * i][key], single[2 * i + 1][key]]
            assert line[key] == pytest.approx(sum(both) / 2, abs=1e-6)


def test_resuming_an_earlier_checkpoint_forgets_the_later_ones(
    finished: Any, llama_folder: Path, tmp_path: Path
) -> None:
    import shutil

    folder, _, _ = finished
    copy = RunDir(tmp_path / "copy")
    shutil.copytree(folder, copy.root)
    seen: list[int] = []

    def stop(line: dict[str, Any], updates: int) -> None:
        seen.append(line["step"])
        assert [path.name for path in copy.complete_checkpoints()] == ["step-000004"]

    run(llama_folder, copy.root, config_with(), copy.checkpoint(4), stop)
    assert seen == [5]
    assert comparable(copy.root) == comparable(folder)


def test_a_bfloat16_base_trains_a_float32_adapter(llama_folder: Path, tmp_path: Path) -> None:
    backend = TransformersBackend.load(llama_folder, LoadSettings(dtype="bfloat16"))
    backend.add_adapter(AdapterSettings(4, 8, 0.0, TARGETS, seed=0))
    kinds = {p.dtype for p in backend.model.parameters() if p.requires_grad}
    assert kinds == {torch.float32}
    config = config_with(max_steps=2)
    reward = RewardFunction(backend, config.reward)
    train(backend, reward, rows_for(backend), config, RunDir(tmp_path))
    lines = read_jsonl(RunDir(tmp_path).metrics)
    assert len(lines) == 2
    assert all(line["grad_norm"] > 0 for line in lines)


def test_what_reads_the_clock_waits_for_a_gpu_once_a_phase(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generation, what comes before rewards, rewards, the rest of the update."""
    waits: list[int] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    run(llama_folder, tmp_path / "cpu", config_with(max_steps=2))
    assert waits == []
    seen: list[int] = []
    clock = run_log.seconds_now

    def on_a_gpu() -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_initialized", lambda: True)
            return clock()

    for module in (run_log, grpo, rollout):
        monkeypatch.setattr(module, "seconds_now", on_a_gpu)
    run(
        llama_folder,
        tmp_path / "gpu",
        config_with(max_steps=2),
        on_line=lambda line, updates: seen.append(len(waits)),
    )
    assert seen == [4, 8]


def test_a_signal_ends_the_run_with_a_checkpoint(llama_folder: Path, tmp_path: Path) -> None:
    import os
    import signal

    def interrupt(line: dict[str, Any], updates: int) -> None:
        if line["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunInterrupted, match=r"stopped by a signal after update [12]") as caught:
        run(llama_folder, tmp_path, config_with(), on_line=interrupt)
    assert caught.value.exit_code == 143
    assert checkpoint.newest_checkpoint(RunDir(tmp_path)) is not None
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_same_seed_is_the_same_run_and_another_is_not(
    finished: Any, llama_folder: Path, tmp_path: Path
) -> None:
    folder, first, _ = finished
    again = run(llama_folder, tmp_path / "same", config_with())
    run(llama_folder, tmp_path / "other", config_with(seed=1))
    assert comparable(tmp_path / "same") == comparable(folder)
    theirs = adapter_of(first)
    assert all(torch.equal(p, theirs[n]) for n, p in adapter_of(again).items())
    assert comparable(tmp_path / "other") != comparable(folder)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = load(llama_folder)
    before = adapter_of(backend)
    poisoned = next(p for n, p in backend.model.named_parameters() if "lora_B" in n)
    poisoned.register_hook(lambda gradient: gradient * float("nan"))
    config = config_with()
    with pytest.raises(NonFiniteLossError, match="update 1: a gradient is not finite"):
        train(
            backend, RewardFunction(backend, config.reward, 6), rows_for(backend), config,
            RunDir(tmp_path),
        )  # fmt: skip
    assert all(torch.equal(p, before[n]) for n, p in adapter_of(backend).items())


def test_compact_logprobs_are_the_stock_ones(backend: Any, tmp_path: Path) -> None:
    from trl import GRPOTrainer

    backend.add_adapter(AdapterSettings(4, 8, 0.0, TARGETS, seed=0))
    with torch.no_grad():
        for name, parameter in backend.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    config = config_with()
    folder = RunDir(tmp_path)
    trainer = RewardTrainer(
        backend, RewardFunction(backend, config.reward), rows_for(backend), config, folder,
        RunLog(folder, lambda line, updates: None),
    )  # fmt: skip
    ids = torch.randint(6, 300, (5, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    mask[2, -4:] = 0
    arguments = (backend.model, ids, mask, 9)

    def gradients(method: Any) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        backend.model.zero_grad()
        logprobs, entropies, _ = method(trainer, *arguments, batch_size=2, compute_entropy=True)
        shown = mask[:, -9:].bool()
        (logprobs * shown).sum().backward()
        grads = [p.grad.clone() for n, p in backend.model.named_parameters() if p.grad is not None]
        return logprobs[shown].detach(), entropies[shown].detach(), grads

    ours = gradients(RewardTrainer._get_per_token_logps_and_entropies)
    stock = gradients(GRPOTrainer._get_per_token_logps_and_entropies)
    assert torch.allclose(ours[0], stock[0], atol=1e-5)
    assert torch.allclose(ours[1], stock[1], atol=1e-4)
    assert len(ours[2]) > 0
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours[2], stock[2], strict=True))


def test_settings_reach_trl_unchanged(finished: Any, llama_folder: Path, tmp_path: Path) -> None:
    config = load_config(CONFIGS / "original_design.yaml")
    settings = trl_settings(config, cuda=False)
    expected = {
        "learning_rate": 5e-6, "num_generations": 8, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 4, "max_completion_length": 512, "beta": 0.04,
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
    }  # fmt: skip
    assert {name: settings[name] for name in expected} == expected
    from trl import GRPOConfig

    arguments = GRPOConfig(output_dir=str(tmp_path), **settings)
    assert arguments.generation_batch_size == 32
    assert {name: getattr(arguments, name) for name in expected} == expected
    cuda = trl_settings(config, cuda=True)
    assert (cuda["use_cpu"], cuda["bf16"], cuda["gradient_checkpointing"]) == (False, True, True)


def test_a_constant_rate_warms_up_where_it_is_told_to(llama_folder: Path, tmp_path: Path) -> None:
    run(llama_folder, tmp_path / "run", config_with(warmup_steps=2, max_steps=4))
    rates = [line["learning_rate"] for line in read_jsonl(RunDir(tmp_path / "run").metrics)]
    assert rates == pytest.approx([0.0, 0.5e-2, 1e-2, 1e-2])

    def schedule(**training: Any) -> Any:
        return trl_settings(config_with(**training), cuda=False)["lr_scheduler_type"]

    assert schedule() == "constant"
    assert schedule(trl={"warmup_ratio": 0.1}) == "constant_with_warmup"
    assert schedule(warmup_steps=3, lr_scheduler_type="linear") == "linear"


def test_further_trl_fields_are_checked_by_name() -> None:
    from trl import GRPOConfig

    known = grpo_config_fields()
    assert known is not None
    assert {f for f in GRPOConfig.__dataclass_fields__ if not f.startswith("_")} <= known
    good = config_with(trl={"epsilon_high": 0.28, "mask_truncated_completions": True})
    assert check_trl_settings(good) == []
    assert trl_settings(good, cuda=False)["epsilon_high"] == 0.28
    bad = config_with(trl={"beta": 1.0, "max_prompt_length": 3})
    assert [str(problem) for problem in check_trl_settings(bad)] == [
        "training.trl.beta: has a key of its own in the config; set training.beta instead",
        "training.trl.max_prompt_length: the installed TRL's GRPOConfig has no such field",
    ]


@pytest.mark.parametrize("conversational", [True, False])
def test_the_reward_works_with_stock_trl(
    llama_folder: Path, tmp_path: Path, conversational: bool
) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    backend = TransformersBackend.load(llama_folder, LoadSettings())
    reward = create_reward_function(
        backend.model,
        backend.prompt_tokenizer.tokenizer,
        reward_type="supervised",
        answer_field="answer",
    )
    texts = [f"What is {i}?" for i in range(8)]
    prompts: list[Any] = (
        [[{"role": "user", "content": t}] for t in texts] if conversational else texts
    )
    seen: list[Any] = []

    def spy(**arguments: Any) -> list[float | None]:
        rewards = reward(**arguments)
        seen.append((arguments, rewards))
        return rewards

    spy.__name__ = reward.__name__
    trainer = GRPOTrainer(
        model=backend.model,
        reward_funcs=[spy],
        args=GRPOConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=4,
            max_completion_length=5, max_steps=2, use_cpu=True, bf16=False, learning_rate=1e-2,
            gradient_checkpointing=False, save_strategy="no", logging_steps=1, report_to="none",
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts, "answer": ["5 apples"] * 8}),
        processing_class=backend.prompt_tokenizer.tokenizer,
        peft_config=LoraConfig(r=4, target_modules=list(TARGETS)),
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 2
    logged = [line["rewards/supervised/mean"] for line in trainer.state.log_history[:2]]
    for (_, rewards), mean in zip(seen, logged, strict=True):
        assert len(rewards) == 4
        assert mean == pytest.approx(sum(rewards) / 4, abs=1e-6)
        assert all(0 < value < 1 for value in rewards)


def test_trl_holds_numbers_and_no_prompts(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, config = load(llama_folder), config_with(max_steps=1)
    reward = RewardFunction(backend, config.reward, 6)
    folder = RunDir(tmp_path)
    trainer = RewardTrainer(
        backend, reward, rows_for(backend), config, folder, RunLog(folder, lambda *_: None)
    )
    assert trainer.train_dataset["row"][:] == list(range(6))
    assert set(trainer.train_dataset["prompt"]) == {""}
    seen: list[Any] = []

    def stop(prompts: list[Any]) -> None:
        seen.extend(prompts)
        raise StopRun("one batch was asked for")

    monkeypatch.setattr(trainer, "_generate", stop)
    with pytest.raises(StopRun, match="one batch was asked for"):
        trainer.train()
    assert len(seen) == 8
    assert all(prompt[0]["content"].startswith("What is ") for prompt in seen)


class StopRun(Exception):
    """Enough was seen."""
