"""What an update asks of a device, on one that exists in name only (benchmarks/device_work.py)."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from remote_trainer.config import RunConfig, parse_config
from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.inference.sampling import STEPS_BETWEEN_READS
from remote_trainer.records import AdapterSettings, LoadSettings, Row
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer.loop import train

ROOT = Path(__file__).parents[3]
TOKENS = 40
READS_OF_AN_UPDATE = 10
TARGETS = ("q_proj", "v_proj", "down_proj")
SAME = ("reward", "reward_std", "kl", "entropy", "completion_tokens_mean", "clipped_share", "loss")


@pytest.fixture(scope="module")
def device_work() -> Any:
    spec = importlib.util.spec_from_file_location("device_work", ROOT / "benchmarks/device_work.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["device_work"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def config_of(micro_steps: int) -> RunConfig:
    training = {
        "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": micro_steps,
        "max_prompt_length": 60, "max_completion_length": TOKENS, "max_steps": 2,
        "group_filter": {"min_std": 0},
    }  # fmt: skip
    reward = [
        {"type": "inverse_loss", "truncated": "score", "scored_by": "reference"},
        {"type": "supervised"},
    ]
    sections = {"data": {"train": "-"}, "reward": reward, "training": training}
    # The same dtype on both sides, so that numbers can be compared.
    fixed = {"generation": {"dtype": "float32"}, "guard": {"action": "off"}}
    return parse_config(json.dumps(sections | fixed), "c")


def rows_of(count: int) -> list[Row]:
    return [
        Row([{"role": "user", "content": f"What is {i} + {i}?"}], {"answer": f"{2 * i}"}, f"f:{i}")
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def four_micro_steps(
    device_work: Any, llama_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp("device") / "run"
    updates, ways = device_work.measure(llama_folder, config_of(4), rows_of(8), folder)
    return updates[-1], ways, folder


def test_the_fast_paths_are_taken_on_a_device(four_micro_steps: Any) -> None:
    _, ways, _ = four_micro_steps
    assert ways["packed rows, training"] == ways["packed rows, scoring"] == "on"
    assert ways["sampling in float32"].startswith("shared cache")


def test_sampling_looks_at_the_device_once_in_16_tokens(four_micro_steps: Any) -> None:
    counts = four_micro_steps[0]["sampling"]
    of_sampling = sum(n for place, n in counts.host_reads.items() if "/sampling.py" in place)
    assert of_sampling == -(-TOKENS // STEPS_BETWEEN_READS)
    assert counts.own_reads <= of_sampling + 1  # whether converted weights are still up to date


def test_an_update_of_four_micro_steps_reads_ten_times_at_most(four_micro_steps: Any) -> None:
    assert 0 < four_micro_steps[0]["update"].own_reads <= READS_OF_AN_UPDATE


def test_the_device_finds_what_the_cpu_finds(
    four_micro_steps: Any, llama_folder: Path, tmp_path: Path
) -> None:
    backend = TransformersBackend.load(llama_folder, LoadSettings())
    backend.add_adapter(AdapterSettings(4, 8, 0.0, TARGETS, seed=0))
    config = config_of(4)
    reward = RewardFunction(backend, config.reward, config.training.max_completion_length)
    rows = [backend.prompt_tokenizer.encode_row(row) for row in rows_of(8)]
    train(backend, reward, rows, config, RunDir(tmp_path))
    on_device = read_jsonl(RunDir(four_micro_steps[2]).metrics)
    on_cpu = read_jsonl(RunDir(tmp_path).metrics)
    assert len(on_device) == len(on_cpu) == 2
    for found, expected in zip(on_device, on_cpu, strict=True):
        for key in SAME:
            assert found[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-5), key


def test_what_lies_on_both_sides_is_refused_as_on_a_gpu(device_work: Any) -> None:
    with device_work.fake_device() as device:
        there = torch.ones(2, device=device_work.DEVICE)
        with pytest.raises(RuntimeError, match="on the device and on the CPU"):
            there + torch.ones(2)
        assert (there + torch.tensor(1.0)).tolist() == [2.0, 2.0]  # a number may come from the CPU
    assert isinstance(device, TorchDispatchMode)


def test_reads_and_transfers_are_counted_where_they_are_made(device_work: Any) -> None:
    with device_work.fake_device() as device:
        there = torch.tensor([1.0, 0.0, 3.0], device=device_work.DEVICE)
        assert device.counts.transfers.total() == 1
        assert bool((there > 0).any())
        assert there[there > 0].tolist() == [1.0, 3.0]
        assert there.sum().item() == 4.0
    # any, the indices of a boolean mask, tolist, item
    assert device.counts.host_reads.total() == 4
    assert all("test_device_work.py" in place for place in device.counts.host_reads)
