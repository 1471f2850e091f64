"""A run folder that comes in pieces, changes meanwhile or is damaged."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote_trainer.mirror import Mirror
from remote_trainer.remote import fetch as fetching
from remote_trainer.remote.fetch import Listing, StorageSource, fetch
from remote_trainer.remote.jobs import RemoteError
from remote_trainer.run_dir import RunDir


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Memory:
    """A run folder in memory; ``cut`` ends a read after so many bytes, once."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.cut: int | None = None
        self.offsets: list[tuple[str, int]] = []

    def listing(self) -> Listing:
        return {name: (len(each), sha256(each)) for name, each in self.files.items()}

    @contextmanager
    def reading(self, name: str, offset: int) -> Iterator[Iterator[bytes]]:
        self.offsets.append((name, offset))
        content = self.files[name][offset:]
        if self.cut is None:
            yield iter([content[:2], content[2:]])
            return
        cut, self.cut = self.cut, None
        yield iter([content[:cut]])
        raise RemoteError("the connection was lost")


def checkpoint(content: bytes, said: bytes | None = None) -> dict[str, bytes]:
    manifest = {"step": 1, "files": {"a": {"bytes": 1, "sha256": sha256(said or content)}}}
    return {
        "checkpoints/step-000001/manifest.json": json.dumps(manifest).encode(),
        "checkpoints/step-000001/a": content,
    }


def test_a_cut_file_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    source = Memory({"metrics.jsonl": b"0123456789", **checkpoint(b"weights")})
    source.cut = 4
    with pytest.raises(RemoteError, match="the connection was lost"):
        fetch(source, tmp_path)
    assert fetch(source, tmp_path) == 3
    assert source.offsets[:2] == [
        ("checkpoints/step-000001/a", 0),
        ("checkpoints/step-000001/a", 4),
    ]
    assert source.offsets[-1][0] == "checkpoints/step-000001/manifest.json"
    assert {name: (tmp_path / name).read_bytes() for name in source.files} == source.files
    assert fetch(source, tmp_path) == 0
    source.files["metrics.jsonl"] += b"+"
    assert fetch(source, tmp_path) == 1
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"0123456789+"


def test_a_part_of_another_version_is_dropped(tmp_path: Path) -> None:
    (tmp_path / ".guard.json.partial").write_bytes(b"other")
    assert fetch(Memory({"guard.json": b"0123456789"}), tmp_path) == 1
    assert (tmp_path / "guard.json").read_bytes() == b"0123456789"


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"step-000001 is damaged where it comes from: a$"):
        fetch(Memory(checkpoint(b"changed", said=b"weights")), tmp_path)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(RemoteError, match="outside of the run folder"):
        fetch(Memory({name: b"x"}), tmp_path / "run")


def test_the_listing_of_a_machine(tmp_path: Path) -> None:
    """The script that is sent to it, which sees no hidden files."""
    (tmp_path / "a" / ".hidden").mkdir(parents=True)
    (tmp_path / "a" / "b").write_bytes(b"content")
    (tmp_path / ".lock").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-", str(tmp_path)],
        input=fetching.LISTING,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {"a/b": [7, sha256(b"content")]}


def test_storage_is_a_source(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    run = RunDir(tmp_path / "here" / "run")
    for name, content in {"config.resolved.yaml": b"x", **checkpoint(b"weights")}.items():
        (run.root / name).parent.mkdir(parents=True, exist_ok=True)
        (run.root / name).write_bytes(content)
    Mirror(str(tmp_path / "storage"), run).save()
    source = StorageSource(Mirror(str(tmp_path / "storage"), RunDir("~/elsewhere/run")))
    assert fetch(source, tmp_path / "there") == 3
    assert (tmp_path / "there/checkpoints/step-000001/a").read_bytes() == b"weights"
