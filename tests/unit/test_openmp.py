"""Threads that wait for each other give up their core soon, unless the user decided otherwise."""

import os
import subprocess
import sys

import pytest

from remote_trainer import openmp
from remote_trainer.openmp import SETTINGS, describe_waiting, limit_spinning

# OpenMP prints what it has read when torch loads it.
LOADS = "import remote_trainer, torch"


def openmp_of(code: str, **variables: str) -> str:
    """What libgomp says of itself in a new process that runs ``code``."""
    bare = {k: v for k, v in os.environ.items() if k not in openmp.OF_THE_USER}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**bare, "OMP_DISPLAY_ENV": "VERBOSE", "CUDA_VISIBLE_DEVICES": "", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


@pytest.fixture
def before_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not loaded torch, on a machine without a GPU."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(openmp, "glob", lambda pattern: [])


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp comes with torch for Linux")
def test_libgomp_takes_the_count_that_the_package_sets() -> None:
    assert f"GOMP_SPINCOUNT = '{SETTINGS['GOMP_SPINCOUNT']}'" in openmp_of(LOADS)


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp comes with torch for Linux")
def test_a_count_of_the_user_stays() -> None:
    assert "GOMP_SPINCOUNT = '123'" in openmp_of(LOADS, GOMP_SPINCOUNT="123")


@pytest.mark.usefixtures("before_torch")
@pytest.mark.parametrize("name", openmp.OF_THE_USER)
def test_nothing_is_set_where_the_user_decided(name: str) -> None:
    environment = {name: "ACTIVE"}
    assert not limit_spinning(environment)
    assert environment == {name: "ACTIVE"}


@pytest.mark.usefixtures("before_torch")
def test_children_inherit_both_settings() -> None:
    environment = {"PATH": "bin"}
    assert limit_spinning(environment)
    assert environment == {"PATH": "bin", "GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}


def test_behind_torch_nothing_is_set() -> None:
    import torch

    assert torch.__name__ in sys.modules
    environment: dict[str, str] = {}
    assert not limit_spinning(environment)
    assert environment == {}


@pytest.mark.usefixtures("before_torch")
def test_a_gpu_that_may_be_used_leaves_the_cpu_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "glob", lambda pattern: ["/dev/nvidia0"])
    assert not limit_spinning({})
    assert not limit_spinning({"CUDA_VISIBLE_DEVICES": "0"})
    assert limit_spinning({"CUDA_VISIBLE_DEVICES": ""})


def test_what_is_in_force_is_told() -> None:
    assert describe_waiting({}) == "OpenMP threads use the wait policy of torch's own OpenMP"
    told = describe_waiting({"GOMP_SPINCOUNT": "5000", "HOME": "x"})
    assert told == "OpenMP thread wait policy: GOMP_SPINCOUNT=5000"
