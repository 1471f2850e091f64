"""Space on a disk: asked for before, and explained where it is missing all the same."""

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from remote_trainer.errors import OutOfMemoryError, StorageError, UserInputError
from remote_trainer.run_dir import RunDir
from remote_trainer.supervision import disk
from remote_trainer.supervision.disk import checkpoint_bytes, error_number, free_bytes, room_for
from remote_trainer.supervision.failures import failures_explained

FULL = OSError(errno.ENOSPC, "No space left on device")
TOLD_BY_RUST = SafetensorError("I/O error: No space left on device (os error 28)")


def test_a_checkpoint_is_five_copies_in_float32() -> None:
    assert checkpoint_bytes(1000) == 5 * 4 * 1000 + 2**20


def test_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0


def test_missing_bytes_are_counted_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda path: 300)
    told = f"{tmp_path}/c: the disk is full: 300 bytes are free, 700 bytes are missing"
    with pytest.raises(StorageError, match=told), room_for(tmp_path / "c", 1000):
        raise AssertionError("nothing is written")


@pytest.mark.parametrize("error", [FULL, TOLD_BY_RUST])
def test_a_disk_that_fills_up_meanwhile(error: Exception, tmp_path: Path) -> None:
    target = tmp_path / "c"
    (target / "half").mkdir(parents=True)
    with pytest.raises(StorageError, match="the disk is full"), room_for(target, 0):
        raise error
    assert not target.exists()


def test_other_errors_of_a_save_pass_and_leave_no_half_folder(tmp_path: Path) -> None:
    target = tmp_path / "c"
    (target / "half").mkdir(parents=True)
    with pytest.raises(ValueError, match="other"), room_for(target, 0):
        raise ValueError("other")
    assert not target.exists()


def test_numbers_of_errors() -> None:
    assert error_number(FULL) == error_number(TOLD_BY_RUST) == errno.ENOSPC
    assert error_number(ValueError("28")) is None


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (FULL, StorageError, r"the disk is full: \d+ bytes are free\. Free space"),
        (OSError(errno.ENOSPC, "full", "/some/file"), StorageError, "^/some/file: the disk"),
        (TOLD_BY_RUST, StorageError, "the disk is full"),
        (OSError(errno.EDQUOT, "quota"), StorageError, r"the disk is full: \d+ bytes are free"),
        (OSError(errno.EROFS, "no"), StorageError, r"\(Read-only file system\)\. Make it"),
        (OSError(errno.ENOTCONN, "no"), StorageError, r"cannot be written any more \(Transport"),
        (OSError(errno.EFBIG, "no"), StorageError, r"cannot be written any more \(File too large"),
        (MemoryError("none"), OutOfMemoryError, r"\(none\)\. Three settings help"),
        (UserInputError.at("a", "b"), UserInputError, "a: b"),
        (OSError(errno.ENOENT, "missing"), OSError, "missing"),
    ],
)
def test_failures_of_the_machine_are_explained(
    error: Exception, kind: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=told), failures_explained(RunDir(tmp_path)):
        raise error


@pytest.mark.parametrize("inside", [True, False])
def test_a_missing_permission_is_explained_for_files_of_the_run_only(
    inside: bool, tmp_path: Path
) -> None:
    file = tmp_path / ("run/metrics.jsonl" if inside else "words.txt")
    error = PermissionError(errno.EACCES, "Permission denied", str(file))
    kind = StorageError if inside else PermissionError
    told = f"^{file}: cannot be written any more" if inside else "words.txt"
    with pytest.raises(kind, match=told), failures_explained(RunDir(tmp_path / "run")):
        raise error


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    RunDir(tmp_path).require_present()
    with pytest.raises(StorageError, match=f"{tmp_path}/run: the run folder is gone"):
        RunDir(tmp_path / "run").require_present()
