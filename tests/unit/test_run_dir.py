"""Files of a run folder: whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from remote_trainer.errors import UserInputError
from remote_trainer.paths import FolderLock
from remote_trainer.run_dir import (
    RunDir,
    append_jsonl,
    clear_leftovers,
    new_folder,
    read_jsonl,
    read_result,
    temporary_folder,
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
    with pytest.raises(ZeroDivisionError, match="division by zero"), new_folder(target) as folder:
        (folder / "a").write_text(str(1 / 0))
    assert not target.exists()
    with new_folder(target) as folder:
        (folder / "b").write_text("whole")
    assert [file.name for file in target.iterdir()] == ["b"]
    assert [file.name for file in tmp_path.iterdir()] == ["adapter"]


def killed(folder: Path, lines: str) -> None:
    """Run ``lines`` in a process that is gone by SIGKILL at their end."""
    script = f"""
import os, signal
from pathlib import Path
from remote_trainer import run_dir
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
target = Path({str(folder / "adapter")!r})
{lines}
die()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(
    tmp_path: Path,
) -> None:
    killed(tmp_path, "kept = run_dir.temporary_folder(target)\nkept.__enter__()")
    (left,) = tmp_path.iterdir()
    (left / "adapter_model.safetensors").write_text("half a file")
    own = tmp_path / ".adapter.backup"  # whatever else is hidden there is not ours
    own.mkdir()
    with temporary_folder(tmp_path / "adapter") as living:
        with new_folder(tmp_path / "gguf") as folder:
            (folder / "b").write_text("whole")
        assert set(tmp_path.iterdir()) == {living, own, tmp_path / "gguf"}
    assert set(tmp_path.iterdir()) == {own, tmp_path / "gguf"}


def test_a_folder_being_replaced_is_the_old_or_the_new_one_wherever_it_is_killed(
    tmp_path: Path,
) -> None:
    target = tmp_path / "adapter"
    with new_folder(target) as folder:
        (folder / "a").write_text("old")
    # The second rename is the one that gives the new folder its name.
    killed(
        tmp_path,
        """
replace, count = os.replace, []
run_dir.os.replace = lambda *a: die() if count else (count.append(1), replace(*a))
with run_dir.new_folder(target) as folder:
    (folder / "a").write_text("new")
""",
    )
    assert not target.exists()
    clear_leftovers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["adapter"]
    assert (target / "a").read_text() == "old"
    with new_folder(target) as folder:
        (folder / "a").write_text("new")
    assert (target / "a").read_text() == "new"
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


def test_lines_and_results_of_a_run_are_objects_of_the_known_form(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"step": 3, "text": null}\n')
    assert read_result(path, step=int, text=(str, type(None))) == {"step": 3, "text": None}
    assert read_jsonl(path) == [{"step": 3, "text": None}]
    with pytest.raises(UserInputError, match=r"a\.json: is damaged \(text is None\)"):
        read_result(path, text=str)
    with pytest.raises(UserInputError, match=r"is damaged \(other is None\); repair it or move"):
        read_result(path, other=dict)
    path.write_text("[3]\n")
    with pytest.raises(UserInputError, match=r"is damaged .*holds a list, not an object"):
        read_result(path)
    with pytest.raises(ValueError, match="it holds a line that is not an object"):
        read_jsonl(path)
    with pytest.raises(UserInputError, match=r"is damaged .*it is not a file"):
        read_result(tmp_path)


def test_no_file_outside_is_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    for name in (".eval.json.partial", "eval.json", "metrics.jsonl", ".lock"):
        (run.root / name).symlink_to(precious)
    write_json(run.eval, {"a": 1})
    assert read_result(run.eval) == {"a": 1}
    assert not run.eval.is_symlink()
    with pytest.raises(OSError, match="symbolic links"):
        append_jsonl(run.metrics, {"a": 1})
    with pytest.raises(UserInputError, match="cannot be written"), FolderLock(run.root):
        pass
    assert precious.read_text() == "mine"


def test_an_export_takes_the_place_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (tmp_path / "merged_16bit").symlink_to("precious")
    with new_folder(tmp_path / "merged_16bit") as folder:
        (folder / "a").write_text("ours")
    assert [file.name for file in (tmp_path / "merged_16bit").iterdir()] == ["a"]
    assert not (tmp_path / "merged_16bit").is_symlink()
    assert [file.name for file in (tmp_path / "precious").iterdir()] == ["file"]


def test_lines_of_ten_gigabytes_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "metrics.jsonl").open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(ValueError, match="10737418240 bytes, at most 2147483648 are read"):
        read_jsonl(tmp_path / "metrics.jsonl")
