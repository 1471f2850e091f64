"""A disk that is full, read-only or gone: the run ends with a message, and goes on afterwards."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disturbed import new, whole
from forked import Command
from small_disk import fill, mount, mounted, unmount
from tiny_run import New, TinyRun, go_on, undisturbed

from remote_trainer.run_dir import read_jsonl
from remote_trainer.trainer import checkpoint

__all__ = ["new", "whole"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.faults]

MEGABYTE = 2**20
MOVER = """
from pathlib import Path

def move(completions, trainer_state, **_):
    if trainer_state.global_step == 3 and Path("move").exists():
        Path("run").rename("elsewhere")
    return [float(len(completion[0]["content"])) for completion in completions]
"""


def assert_readable(run: TinyRun, steps: list[int]) -> None:
    """Whole checkpoints and all files of the run can be read."""
    held = [checkpoint.verify(folder)["step"] for folder in run.folder.complete_checkpoints()]
    assert held == steps
    assert [line["step"] for line in read_jsonl(run.folder.metrics)] != []
    for file in (run.folder.guard, run.folder.environment, run.folder.data_report):
        json.loads(file.read_text())


@pytest.mark.parametrize(
    ("fault", "where", "steps"),
    [
        ("enospc@save:optimizer:2", "checkpoints/step-000004: the disk is full", [2]),
        pytest.param("enospc@log:4", ": the disk is full", [2], marks=pytest.mark.long),
        pytest.param("enospc@export:lora", ": the disk is full", [4, 6], marks=pytest.mark.long),
        pytest.param(
            "erofs@save:rng:2",
            ": cannot be written any more (Read-only file system)",
            [2],
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_failed_write_ends_the_run_and_harms_nothing(
    fault: str, where: str, steps: list[int], new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(tmp_path)
    code, text = run.train(fault)
    assert code == 1
    assert f"error: {run.folder.root}" in text
    assert where in text
    assert "run the same command again" in text
    assert "Traceback" not in text
    assert_readable(run, steps)
    go_on(run, whole)


@pytest.mark.long
def test_an_export_that_does_not_fit_is_written_later(new: New, tmp_path: Path) -> None:
    run = new(tmp_path, formats=("lora", "merged_16bit"))
    code, text = run.train("enospc@export:merged_16bit:written")
    assert code == 1
    assert "the disk is full" in text
    assert "Traceback" not in text
    assert not (run.folder.root / "merged_16bit").exists()
    assert not list(run.folder.root.glob(".*.partial"))
    weights = (run.folder.adapter / "adapter_model.safetensors").read_bytes()
    code, text = run.train()
    assert code == 0, text
    assert (run.folder.root / "merged_16bit" / "proof.json").exists()
    assert (run.folder.adapter / "adapter_model.safetensors").read_bytes() == weights


def test_a_run_folder_that_is_moved_away_is_missed(new: New, tmp_path: Path) -> None:
    (tmp_path / "mover.py").write_text(MOVER)
    (tmp_path / "whole").mkdir()
    shutil.copy(tmp_path / "mover.py", tmp_path / "whole")
    more = {"reward": {"function": "mover:move"}}
    run = new(tmp_path, changes={"keep": "last"}, more=more)
    (tmp_path / "move").touch()
    code, text = run.train()
    assert code == 1
    assert f"error: {run.folder.root}: the run folder is gone" in text
    assert "Traceback" not in text
    assert not run.folder.root.exists()
    (tmp_path / "move").unlink()
    (tmp_path / "elsewhere").rename(run.folder.root)
    go_on(run, undisturbed(new(tmp_path / "whole", changes={"keep": "last"}, more=more)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 6 MB."""
    folder = tmp_path / "disk"
    with mounted(folder, megabytes=6) as why_not:
        if why_not:
            pytest.skip(why_not)
        yield folder


def wait_for_checkpoint(run: TinyRun, command: Command) -> None:
    until = time.monotonic() + 60
    while not run.folder.complete_checkpoints():
        assert command.process.is_alive(), command.text
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_disk_that_really_is_full(
    small_disk: Path, new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(small_disk, output=tmp_path)
    command = run.start()
    wait_for_checkpoint(run, command)
    filler = fill(small_disk)
    assert command.wait() == 1
    assert "the disk is full" in command.text
    assert "Traceback" not in command.text
    filler.unlink()
    assert_readable(run, [2])
    go_on(run, whole)


def test_a_disk_that_is_too_small_is_refused_before_the_start(small_disk: Path, new: New) -> None:
    (small_disk / "filler").write_bytes(bytes(5 * MEGABYTE))
    run = new(small_disk)
    code, text = run.train()
    assert code == 2
    assert "output_dir: checkpoints need up to" in text
    assert "are free; free disk space" in text


@pytest.fixture
def second_place(tmp_path: Path) -> Iterator[Path]:
    """A folder that shows the content of ``tmp_path / "disk"`` as a mounted disk."""
    (tmp_path / "disk").mkdir()
    place = tmp_path / "place"
    place.mkdir()
    if why_not := mount("--bind", tmp_path / "disk", place):
        pytest.skip(why_not)
    yield place
    unmount(place)


@pytest.mark.long
def test_a_mount_that_vanishes_and_one_that_is_read_only(
    second_place: Path, new: New, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = new(second_place, output=tmp_path)
    command = run.start()
    wait_for_checkpoint(run, command)
    unmount(second_place, "--lazy")
    assert command.wait() == 1
    assert f"error: {run.folder.root}: the run folder is gone" in command.text
    assert "Traceback" not in command.text
    assert not list(second_place.iterdir())  # nothing was written below the mount
    assert mount("--bind", "-o", "ro", tmp_path / "disk", second_place) is None
    assert_readable(run, [2])
    code, text = run.train()
    assert code == 2, text
    assert f"output_dir: {run.folder.root}: cannot be written" in text
    unmount(second_place)
    assert mount("--bind", tmp_path / "disk", second_place) is None
    go_on(run, whole)
