"""Files of a run folder: whole or not at all."""

import os
from pathlib import Path

import pytest

from remote_trainer.run_dir import (
    RunDir,
    append_jsonl,
    new_folder,
    read_jsonl,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with pytest.raises(ZeroDivisionError), new_folder(target) as folder:
        (folder / "a").write_text(str(1 / 0))
    assert not target.exists()
    with new_folder(target) as folder:
        (folder / "b").write_text("whole")
    assert [file.name for file in target.iterdir()] == ["b"]
    assert [file.name for file in tmp_path.iterdir()] == ["adapter"]


def test_an_unfinished_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    append_jsonl(path, {"step": 1})
    with path.open("a") as handle:
        handle.write('{"step": 2, "rew')
    assert read_jsonl(path) == [{"step": 1}]
    assert read_jsonl(tmp_path / "none") == []


def test_checkpoints_without_a_manifest_do_not_exist(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in (20, 3, 100):
        run.checkpoint(step).mkdir(parents=True)
    for step in (20, 3):
        write_json(run.checkpoint(step) / "manifest.json", {})
    assert [folder.name for folder in run.complete_checkpoints()] == ["step-000003", "step-000020"]


def test_set_aside_takes_the_first_free_number(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "r")
    for expected in ("r.1", "r.2"):
        run.root.mkdir()
        assert run.set_aside().name == expected
        assert not run.root.exists()
