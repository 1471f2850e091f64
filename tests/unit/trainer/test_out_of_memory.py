"""A micro-step that runs out of memory half-way is done again and leaves no trace of the first."""

from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import TIMES, adapter_of, config_with, load, rows_for

from remote_trainer.engines.transformers_backend import TransformersBackend
from remote_trainer.inference.own_rows import in_parts, row_logprobs
from remote_trainer.inference.packed_rows import continuation_logprobs
from remote_trainer.records import Continuation
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir, read_jsonl
from remote_trainer.trainer.loop import train

UPDATES = 2


def trained(backend: TransformersBackend, folder: Path) -> list[dict[str, Any]]:
    config = config_with(max_steps=UPDATES)
    reward = RewardFunction(backend, config.reward, 6)
    train(backend, reward, rows_for(backend), config, RunDir(folder))
    return read_jsonl(RunDir(folder).metrics)


def test_a_backward_pass_that_fails_is_done_again(llama_folder: Path, tmp_path: Path) -> None:
    """Some parameters have their gradient already when memory ends, in both micro-steps."""
    undisturbed = load(llama_folder)
    expected = trained(undisturbed, tmp_path / "whole")
    backend, calls = load(llama_folder), [0]
    first = next(
        p for n, p in backend.model.named_parameters() if "layers.0" in n and "lora_B" in n
    )

    def fail(gradient: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] in (1, 3):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return gradient

    first.register_hook(fail)
    found = trained(backend, tmp_path / "failed")
    assert calls[0] == 2 + 2 * UPDATES  # two failed, two micro-steps an update
    assert backend.budget.limit == 1024
    for mine, theirs in zip(found, expected, strict=True):
        numbers = {
            key: value
            for key, value in theirs.items()
            if isinstance(value, float) and key not in TIMES
        }
        assert len(numbers) > 10
        for key, value in numbers.items():
            assert mine[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    weights = adapter_of(undisturbed)
    for name, tensor in adapter_of(backend).items():
        assert torch.allclose(tensor, weights[name], atol=1e-4), name


def rows() -> list[Continuation]:
    return [
        Continuation((5, 6, 7, 8), (9, 10, 11)),
        Continuation((5, 6, 7, 8), (12,)),
        Continuation((5, 6, 9), (13, 14)),
        Continuation((20, 21), (22, 23, 24, 25)),
    ]


def gradients(backend: TransformersBackend, found: tuple[torch.Tensor, torch.Tensor]) -> Any:
    backend.model.zero_grad()
    found[0].square().sum().backward()  # type: ignore[no-untyped-call]
    named = backend.model.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize("tokens", [4096, 8, 1])
def test_smaller_passes_find_the_same_numbers_and_gradients(
    tokens: int, llama_folder: Path
) -> None:
    backend = load(llama_folder)
    whole = continuation_logprobs(backend.model, rows(), 4, 1.0)
    expected = gradients(backend, whole)
    ways = [
        continuation_logprobs(backend.model, rows(), 4, 1.0, tokens, recompute=True),
        in_parts(alone, backend.model, rows(), 4, 1.0, 0, most_tokens=tokens),
    ]
    for found in ways:
        assert torch.allclose(found[0], whole[0], atol=1e-5)
        assert torch.allclose(found[1], whole[1], atol=1e-5)
        mine = gradients(backend, found)
        assert mine.keys() == expected.keys()
        assert all(torch.allclose(mine[name], expected[name], atol=1e-4) for name in expected)


def alone(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return row_logprobs(*arguments, chunked=True)
