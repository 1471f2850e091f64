"""A copy of a run folder on storage that several machines reach: a shared folder, S3, ..."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from remote_trainer.errors import UserInputError
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import MANIFEST, RunDir, file_sha256, new_folder

FIELD = "distributed.storage"
PARTIAL = ".partial"
HASHES = ".hashes.json"
"""In a mirror: size and sha256 of each file, by which a fetched one is verified."""


class Mirror:
    """Copies what changed. Killed at any moment, it leaves whole files there, and a checkpoint
    has its manifest last, as on disk."""

    def __init__(self, uri: str, folder: RunDir) -> None:
        """Raises UserInputError if the storage cannot be used."""
        self._folder = folder
        self._uri = uri
        self._fs, base = _open(uri)
        self._root = f"{base.rstrip('/')}/{folder.root.resolve().name}"
        self._sent: dict[str, tuple[int, int]] = {}
        self._hashes: dict[str, list[Any]] = {}

    def save(self) -> None:
        """Copy new and changed files; remove checkpoints that were removed here."""
        for path in sorted(self._files(), key=lambda p: (p.name == MANIFEST, p)):
            name, stat = path.relative_to(self._folder.root).as_posix(), path.stat()
            if self._sent.get(name) != (stat.st_size, stat.st_mtime_ns):
                self._put(path, name)
                self._sent[name] = stat.st_size, stat.st_mtime_ns
                self._hashes[name] = [stat.st_size, file_sha256(path)]
        self._write_hashes()
        kept = {folder.name for folder in self._folder.checkpoints.glob("*")}
        for there in self._names(self._folder.checkpoints.name):
            if there not in kept:
                self._fs.rm(f"{self._root}/{self._folder.checkpoints.name}/{there}", recursive=True)

    def restore(self) -> None:
        """Fetch the run if this machine does not have it."""
        done = self._folder.resolved_config.name
        if self._folder.started or not self._fs.exists(f"{self._root}/{done}"):
            return
        # The file by which a folder counts as a run comes last.
        for name in sorted(self._all(), key=lambda name: (name == done, name)):
            self._get(name, self._folder.root / name)

    def restore_checkpoint(self, checkpoint: Path) -> None:
        """Fetch one checkpoint if this machine does not have it."""
        if (checkpoint / MANIFEST).exists():
            return
        inside = f"{self._folder.checkpoints.name}/{checkpoint.name}"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(checkpoint) as partial:
            for name in self._names(inside):
                self._get(f"{inside}/{name}", partial / name)

    def listing(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of each file of the run there."""
        with self.open(HASHES) as handle:
            return {name: (size, digest) for name, (size, digest) in json.load(handle).items()}

    def open(self, name: str) -> Any:
        """A file there, for reading bytes; raises UserInputError if it is missing."""
        try:
            return self._fs.open(f"{self._root}/{name}", "rb")
        except FileNotFoundError:
            raise UserInputError.at(FIELD, f"{self._root} holds no {name}") from None

    def _write_hashes(self) -> None:
        """Those of the files that are here now."""
        here = {path.relative_to(self._folder.root).as_posix() for path in self._files()}
        found = {name: facts for name, facts in self._hashes.items() if name in here}
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as handle:
            json.dump(found, handle)
            handle.flush()
            self._put(Path(handle.name), HASHES)

    def set_aside(self) -> None:
        """Rename a run that is there to the first free ``<name>.N``."""
        if not self._fs.exists(f"{self._root}/{self._folder.resolved_config.name}"):
            return
        number = 1
        while self._fs.exists(f"{self._root}.{number}"):
            number += 1
        self._fs.mv(self._root, f"{self._root}.{number}", recursive=True)

    def _files(self) -> Iterator[Path]:
        """All but hidden files and the heartbeat, which changes at any time."""
        for path in self._folder.root.rglob("*"):
            parts = path.relative_to(self._folder.root).parts
            hidden = any(part.startswith(".") for part in parts)
            if path.is_file() and not hidden and path != self._folder.heartbeat:
                yield path

    def _all(self) -> list[str]:
        """Names of all whole files there, relative to the run."""
        found = [PurePosixPath(path) for path in self._fs.find(self._root)]
        root = PurePosixPath(self._fs._strip_protocol(self._root))
        return [
            p.relative_to(root).as_posix()
            for p in found
            if p.suffix != PARTIAL and p.name != HASHES
        ]

    def _names(self, inside: str) -> list[str]:
        where = f"{self._root}/{inside}"
        if not self._fs.exists(where):
            return []
        return [PurePosixPath(path).name for path in self._fs.ls(where, detail=False)]

    def _put(self, path: Path, name: str) -> None:
        target = f"{self._root}/{name}"
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        if "file" not in self._fs.protocol:  # object stores show whole files only
            self._fs.put_file(str(path), target)
            return
        self._fs.put_file(str(path), target + PARTIAL)
        self._fs.mv(target + PARTIAL, target)

    def _get(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}{PARTIAL}")
        self._fs.get_file(f"{self._root}/{name}", str(partial))
        shutil.move(partial, target)


def mirror_of(uri: str | None, folder: RunDir) -> Mirror | None:
    """The mirror that a config asks for."""
    return None if uri is None else Mirror(uri, folder)


def mirrored(watch: ProgressCallbacks, mirror: Mirror | None) -> ProgressCallbacks:
    """``watch``, with the mirror kept up to date."""
    if mirror is None:
        return watch

    def saved() -> None:
        mirror.save()
        watch.saved()

    return replace(watch, saved=saved)


def _open(uri: str) -> tuple[Any, str]:
    """(file system, path in it)."""
    import fsspec

    try:
        found: tuple[Any, str] = fsspec.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UserInputError.at(
            FIELD, f"{uri!r} cannot be used: {error}; write a folder, or a URI such as s3://bucket"
        ) from None
    return found
