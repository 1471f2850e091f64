"""A process alone, and one that a launcher told its place. Several ones: test_many_processes.py."""

import pytest

from remote_trainer import processes
from remote_trainer.config import parse_config
from remote_trainer.planning.length import updates_per_epoch


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in processes.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def place(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def test_a_process_alone_agrees_with_itself() -> None:
    processes.join()
    assert (processes.process_count(), processes.process_index()) == (1, 0)
    assert processes.is_main()
    assert processes.gathered((1, 2)) == [1, 2]
    assert processes.own_part([1, 2]) == [1, 2]
    assert processes.shared("value") == "value"


def test_a_count_without_a_place_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # some schedulers set it for every command
    assert processes.process_count() == 1


@pytest.mark.parametrize(("rank", "own"), [(0, [1, 2]), (1, [3, 4]), (2, [5, 6])])
def test_each_process_has_its_own_part(
    monkeypatch: pytest.MonkeyPatch, rank: int, own: list[int]
) -> None:
    place(monkeypatch, rank, 3)
    assert processes.own_part([1, 2, 3, 4, 5, 6]) == own
    assert processes.is_main() is (rank == 0)


def test_an_epoch_is_shorter_with_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "training: {per_device_train_batch_size: 2, gradient_accumulation_steps: 3}"
    config = parse_config(text, "c")
    assert updates_per_epoch(config, 60) == 10
    place(monkeypatch, 0, 2)
    assert updates_per_epoch(config, 60) == 5
