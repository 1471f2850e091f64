"""The file names of a run folder, and atomic writing of its files."""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from remote_trainer.errors import GOES_ON, StorageError, UserInputError
from remote_trainer.export_formats import ADAPTER, EXPORT_FORMATS
from remote_trainer.json_files import parse_json, read_object, read_text
from remote_trainer.paths import take_lock

CHECKPOINT_PREFIX = "step-"
MANIFEST = "manifest.json"
HEARTBEAT = "heartbeat.json"
CHECKPOINT_ADAPTER = "adapter.safetensors"
MOST_BYTES_OF_LINES = 2**31
"""Of metrics, answers or completions: a million updates, or 50,000 held-out rows."""
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.partial")
_REPLACED = "replaced"


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` so that a reader sees the old file or the new one.

    A link in its place is replaced, and its target stays as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with partial.open("xb") as handle:  # does not follow a link
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except OSError:  # on a full disk the next attempt needs the space
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON (a NaN is an error: no reader could load it)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_jsonl(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSON Lines file, as `write_text` does."""
    written = (json.dumps(line, ensure_ascii=False, allow_nan=False) for line in lines)
    write_text(path, "".join(f"{line}\n" for line in written))


def append_jsonl(path: Path, value: Mapping[str, Any]) -> None:
    """Append one line; a killed process leaves at most one incomplete last line.

    Raises OSError if ``path`` is a link: its target is not one of our files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "a", encoding="utf-8") as handle:
        handle.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file; an incomplete last line (of a killed process) is ignored.

    Raises OSError or ValueError for a file that holds anything else.
    """
    if not os.path.lexists(path):
        return []
    lines = read_text(path, MOST_BYTES_OF_LINES).split("\n")
    rows = [parse_json(line) for line in lines[:-1] if line]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("it holds a line that is not an object")
    return rows


def read_result(path: Path, **kinds: type | tuple[type, ...]) -> dict[str, Any]:
    """An object that this program wrote, whose values under some keys have the given types.

    Raises UserInputError that names the file if it was damaged or changed.
    """
    try:
        value = read_object(path)
        for key, kind in kinds.items():
            if not isinstance(value.get(key), kind):
                raise ValueError(f"{key} is {value.get(key)!r:.100}")
    except (OSError, ValueError) as error:
        raise UserInputError.at(
            str(path), f"is damaged ({error}); repair it or move it away"
        ) from None
    return value


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the name ``path`` only if the block succeeds.

    It is removed if the block fails; what a killed process leaves is removed the next time.
    """
    clear_leftovers(path.parent)
    with temporary_folder(path) as partial:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                sync_file(file)
        _take_name(partial, path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` for the time of the block: the same disk.

    Its name is new, so that a child of a killed process never writes into what the next one makes.
    It is locked while this process lives, so that no other one clears it away.
    """
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    folder.mkdir(parents=True)
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary folders that killed processes left in ``folder``.

    Those of living processes stay, and where a disk knows no locks all do. A folder that was just
    being replaced gets its name back.
    """
    for leftover in list(folder.iterdir()) if folder.exists() else ():
        found = _TEMPORARY.fullmatch(leftover.name)
        lock = _lock(leftover) if found and leftover.is_dir() else None
        if found is None or lock is None:
            continue
        replaced, path = leftover / _REPLACED, folder / found["name"]
        if replaced.exists() and not path.exists():
            os.replace(replaced, path)
        shutil.rmtree(leftover, ignore_errors=True)
        os.close(lock)


def _take_name(partial: Path, path: Path) -> None:
    """Renames only: killed at any moment, ``path`` is the old folder, the new one or nothing."""
    if path.exists():
        with temporary_folder(path) as aside:
            os.replace(path, aside / _REPLACED)
            os.replace(partial, path)
            sync_folder(path.parent)
    else:
        os.replace(partial, path)
        sync_folder(path.parent)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds a folder until it is closed or this process ends, however it ends.

    None where another process holds it, or where the disk knows no locks.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # gone meanwhile: two processes clear the same folder
        return None
    try:
        if take_lock(descriptor):
            return descriptor
    except OSError:  # no locks here; then nothing is cleared away
        pass
    os.close(descriptor)
    return None


def sync_file(path: Path) -> None:
    """Force the content of ``path`` to disk."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class RunDir:
    """Paths of one run folder. Knows only names, not file contents."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.config = self.root / "config.yaml"
        self.resolved_config = self.root / "config.resolved.yaml"
        self.environment = self.root / "environment.json"
        self.base = self.root / "base.json"
        self.data_report = self.root / "data_report.json"
        self.metrics = self.root / "metrics.jsonl"
        self.guard = self.root / "guard.json"
        self.completions = self.root / "completions"
        self.eval = self.root / "eval.json"
        self.answers = self.root / "answers.jsonl"
        self.checkpoints = self.root / "checkpoints"
        self.adapter = self.root / ADAPTER
        folders = dict.fromkeys(each.folder for each in EXPORT_FORMATS.values())
        self.exports = [self.root / name for name in folders if name != ADAPTER]
        self.report = self.root / "report.html"
        self.heartbeat = self.root / HEARTBEAT
        self.stacks = self.root / "stacks.txt"
        self.tracking = self.root / "tracking"

    def __str__(self) -> str:
        return str(self.root)

    def require_present(self) -> None:
        """Raises StorageError if the folder was removed while a run was under way; writing would
        make a new folder with half a run in it."""
        if not self.root.is_dir():
            raise StorageError(
                f"{self.root}: the run folder is gone (moved, deleted, or its disk was removed). "
                + GOES_ON.format("Put it back")
            )

    @property
    def started(self) -> bool:
        """Whether a run was started here."""
        return os.path.exists(self.resolved_config)

    def export(self, form: str) -> Path:
        """Folder of the run's export in one format."""
        return self.root / EXPORT_FORMATS[form].folder

    def checkpoint(self, step: int) -> Path:
        """Folder of the checkpoint written after ``step`` updates."""
        return self.checkpoints / f"{CHECKPOINT_PREFIX}{step:06d}"

    def step_of(self, checkpoint: Path) -> int:
        """Number of updates of a checkpoint."""
        return int(checkpoint.name.removeprefix(CHECKPOINT_PREFIX))

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints whose manifest exists (it is written last), oldest first."""
        return sorted(manifest.parent for manifest in self.checkpoints.glob(f"*/{MANIFEST}"))

    def completions_file(self, step: int) -> Path:
        """Sampled completions of one update."""
        return self.completions / f"{CHECKPOINT_PREFIX}{step:06d}.jsonl"

    def set_aside(self) -> Path:
        """Move the folder to the first free ``<name>.N`` and return that path."""
        number = 1
        while (target := self.root.with_name(f"{self.root.name}.{number}")).exists():
            number += 1
        os.replace(self.root, target)
        return target
