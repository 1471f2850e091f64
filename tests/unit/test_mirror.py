"""The copy of a run folder on shared storage."""

from pathlib import Path

import pytest

from remote_trainer.errors import UserInputError
from remote_trainer.mirror import Mirror, mirror_of
from remote_trainer.run_dir import RunDir

pytest.importorskip("fsspec")


def begun(folder: Path) -> RunDir:
    run = RunDir(folder / "run")
    run.checkpoint(2).mkdir(parents=True)
    run.resolved_config.write_text("a: 1\n")
    run.metrics.write_text("{}\n")
    (run.checkpoint(2) / "manifest.json").write_text("{}")
    (run.checkpoint(2) / "adapter.safetensors").write_text("weights")
    (run.root / ".lock").write_text("held")
    run.heartbeat.write_text("{}")  # a running process changes it at any time
    return run


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_machine_without_the_run_gets_it(tmp_path: Path) -> None:
    run = begun(tmp_path / "one")
    Mirror(str(tmp_path / "storage"), run).save()
    other = RunDir(tmp_path / "two" / "run")
    Mirror(str(tmp_path / "storage"), other).restore()
    assert names(other.root) == names(run.root) - {".lock", "heartbeat.json"}
    assert other.complete_checkpoints() == [other.checkpoint(2)]


def test_a_machine_with_the_run_keeps_its_own(tmp_path: Path) -> None:
    run = begun(tmp_path / "one")
    mirror = Mirror(str(tmp_path / "storage"), run)
    mirror.save()
    run.metrics.write_text("{}\n{}\n")
    mirror.restore()
    assert run.metrics.read_text() == "{}\n{}\n"


def test_what_changed_is_copied_and_old_checkpoints_go(tmp_path: Path) -> None:
    run = begun(tmp_path / "one")
    mirror = Mirror(str(tmp_path / "storage"), run)
    mirror.save()
    run.checkpoint(2).rename(run.checkpoint(4))
    run.metrics.write_text("{}\n{}\n")
    mirror.save()
    there = RunDir(tmp_path / "storage" / "run")
    assert there.complete_checkpoints() == [there.checkpoint(4)]
    assert not there.checkpoint(2).exists()
    assert there.metrics.read_text() == "{}\n{}\n"
    assert mirror.listing().keys() == names(run.root) - {".lock", "heartbeat.json"}


def test_one_checkpoint_is_fetched_alone(tmp_path: Path) -> None:
    Mirror(str(tmp_path / "storage"), begun(tmp_path / "one")).save()
    other = RunDir(tmp_path / "two" / "run")
    Mirror(str(tmp_path / "storage"), other).restore_checkpoint(other.checkpoint(2))
    assert names(other.root) == {
        "checkpoints/step-000002/manifest.json",
        "checkpoints/step-000002/adapter.safetensors",
    }


def test_a_new_start_keeps_the_old_run(tmp_path: Path) -> None:
    run = begun(tmp_path / "one")
    mirror = Mirror(str(tmp_path / "storage"), run)
    mirror.set_aside()  # nothing is there yet
    mirror.save()
    mirror.set_aside()
    assert not (tmp_path / "storage" / "run").exists()
    assert (tmp_path / "storage" / "run.1" / "metrics.jsonl").exists()


def test_unusable_storage_is_named(tmp_path: Path) -> None:
    assert mirror_of(None, RunDir(tmp_path)) is None
    with pytest.raises(UserInputError, match=r"^distributed\.storage: 'nonsense://x' cannot be"):
        Mirror("nonsense://x", RunDir(tmp_path))
