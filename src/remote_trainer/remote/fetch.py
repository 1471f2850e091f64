"""A run folder back from another machine or from storage, resumed where it was cut, verified."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from remote_trainer.json_files import read_object
from remote_trainer.mirror import Mirror
from remote_trainer.remote.jobs import RemoteError
from remote_trainer.remote.ssh import Machine
from remote_trainer.run_dir import HEARTBEAT, MANIFEST, RunDir, file_sha256

PASSES = 4
"""A run that is still going writes while it is read, so what changed is fetched again."""
LISTING = """
import hashlib, json, os, sys
root = os.path.expanduser(sys.argv[1])
if not os.path.isdir(root):
    sys.exit(root + " does not exist")
found = {}
for folder, folders, names in os.walk(root):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in names:
        path = os.path.join(folder, name)
        if not name.startswith(".") and os.path.isfile(path):
            digest = hashlib.sha256()
            with open(path, "rb") as handle:
                size = 0
                for block in iter(lambda: handle.read(1 << 20), b""):
                    digest.update(block)
                    size += len(block)
            found[os.path.relpath(path, root)] = [size, digest.hexdigest()]
print(json.dumps(found))
"""

Listing = Mapping[str, tuple[int, str]]
"""Name in the run folder -> size in bytes and sha256."""


class Source(Protocol):
    """Where a run folder is."""

    def listing(self) -> Listing:
        """All its files."""
        ...

    def reading(self, name: str, offset: int) -> Any:
        """A context with the bytes of a file from ``offset`` on, in pieces."""
        ...


class MachineSource:
    """A folder of another machine."""

    def __init__(self, machine: Machine, folder: str) -> None:
        self._machine, self._folder = machine, folder

    def listing(self) -> Listing:
        """All its files but the heartbeat, which changes at any time; python3 there computes the
        hashes."""
        command = f"python3 - {shlex.quote(self._folder)}"
        found = json.loads(self._machine.run(command, LISTING.encode()))
        found.pop(HEARTBEAT, None)
        return {name: (int(size), str(digest)) for name, (size, digest) in found.items()}

    def reading(self, name: str, offset: int) -> Any:
        """The bytes of a file from ``offset`` on."""
        home = self._folder.startswith("~/")
        path = shlex.quote(f"{self._folder.removeprefix('~/')}/{name}")
        return self._machine.reading(f"tail -c +{offset + 1} {'~/' if home else ''}{path}")


class StorageSource:
    """The mirror of a run."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def listing(self) -> Listing:
        """As the mirror recorded it."""
        return self._mirror.listing()

    @contextmanager
    def reading(self, name: str, offset: int) -> Iterator[Iterator[bytes]]:
        """The bytes of a file from ``offset`` on."""
        with self._mirror.open(name) as handle:
            handle.seek(offset)
            yield iter(lambda: handle.read(1 << 20), b"")


def fetch(source: Source, target: Path) -> int:
    """Bring every file that differs; returns how many were brought.

    Raises RemoteError if a file does not arrive as it is there, or a checkpoint is damaged.
    """
    brought = 0
    for _ in range(PASSES):
        listing = source.listing()
        changed = [name for name in _in_order(listing) if not _is_there(target, name, listing)]
        if not changed:
            _verify_checkpoints(target, listing)
            return brought
        for name in changed:
            brought += _bring(source, target, name, listing[name])
    raise RemoteError(
        f"some files changed each time they were read ({', '.join(changed[:3])}); the run is still "
        "going: fetch again later"
    )


def _in_order(listing: Listing) -> list[str]:
    """Manifests last, as they were written; refuses names that lead out of the folder."""
    for name in listing:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise RemoteError(f"the other side names a file outside of the run folder: {name!r}")
    return sorted(listing, key=lambda name: (PurePosixPath(name).name == MANIFEST, name))


def _is_there(target: Path, name: str, listing: Listing) -> bool:
    file, (size, digest) = target / name, listing[name]
    return file.is_file() and file.stat().st_size == size and file_sha256(file) == digest


def _bring(source: Source, target: Path, name: str, facts: tuple[int, str]) -> bool:
    """Whether the file arrived; a partial one of an earlier call is continued."""
    file = target / name
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    size, digest = facts
    offset = partial.stat().st_size if partial.exists() else 0
    if offset > size:
        partial.unlink()
        offset = 0
    with partial.open("ab") as handle, source.reading(name, offset) as pieces:
        for piece in pieces:
            handle.write(piece)
        handle.flush()
        os.fsync(handle.fileno())
    if file_sha256(partial) != digest:
        partial.unlink()  # it changed meanwhile, or belonged to another version
        return False
    os.replace(partial, file)
    return True


def _verify_checkpoints(target: Path, listing: Listing) -> None:
    """What a manifest says must hold for what arrived."""
    for checkpoint in RunDir(target).complete_checkpoints():
        inside = checkpoint.relative_to(target).as_posix()
        try:
            listed = read_object(checkpoint / MANIFEST)["files"].items()
            wrong = [
                name
                for name, facts in listed
                if listing.get(f"{inside}/{name}", (0, ""))[1] != facts["sha256"]
            ]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            wrong = [MANIFEST]
        if f"{inside}/{MANIFEST}" not in listing:
            continue  # of an earlier fetch
        if wrong:
            raise RemoteError(f"{checkpoint} is damaged where it comes from: {', '.join(wrong)}")
