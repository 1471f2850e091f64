"""Out of memory: the work is done again with fewer tokens at once, until that does not help."""

import logging
from typing import Any

import pytest
import torch

from remote_trainer.engines import token_budget
from remote_trainer.engines.token_budget import TokenBudget
from remote_trainer.errors import OutOfMemoryError

FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"


def needing(most: int, error: Exception) -> Any:
    """Work that succeeds with at most so many tokens at once."""

    def work(limit: int | None) -> int:
        if limit is None or limit > most:
            raise error
        return limit

    return work


@pytest.mark.parametrize(
    "error", [RuntimeError(FULL), torch.OutOfMemoryError("CUDA out of memory."), MemoryError()]
)
def test_the_limit_is_halved_until_it_fits_and_kept(error: Exception) -> None:
    budget, told = TokenBudget(), list[int]()
    budget.on_lower = told.append
    assert budget.run(lambda limit: limit) is None
    assert budget.run(needing(600, error)) == 512
    assert told == [2048, 1024, 512]
    assert budget.run(lambda limit: limit) == 512
    assert budget.run(needing(512, error), at_most=64) == 512  # less than that is tried anyway


def test_it_starts_below_what_the_work_takes_by_itself() -> None:
    assert TokenBudget().run(needing(4096, RuntimeError(FULL)), at_most=1000) == 500


def test_it_gives_up_with_the_settings_that_help() -> None:
    budget = TokenBudget()
    with pytest.raises(OutOfMemoryError, match="Three settings help") as given_up:
        budget.run(needing(0, RuntimeError(FULL)))
    told = str(given_up.value)
    assert FULL in told
    for setting in ("max_completion_length", "num_generations", "gradient_checkpointing: true"):
        assert f"training.{setting}" in told
    assert budget.limit == 128


def test_other_errors_pass() -> None:
    budget = TokenBudget()
    with pytest.raises(RuntimeError, match="shapes"):
        budget.run(needing(0, RuntimeError("shapes do not fit")))
    assert budget.limit is None


@pytest.mark.parametrize(("free", "limit"), [(None, None), (10**15, None), (0, 2048)])
def test_the_limit_of_a_container_lowers_it_before_the_kernel_kills(
    free: float | None,
    limit: int | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(token_budget, "free_in_container", lambda: free)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    budget = TokenBudget()
    assert budget.run(lambda limit: "done") == "done"
    assert budget.limit == limit
    assert budget.run(lambda limit: "done") == "done"  # the peak did not grow
    assert budget.limit == limit
    assert [("nearly full" in line) for line in caplog.messages] == [True] * (limit is not None)
