"""A disk of a few megabytes, where this process may mount one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MOUNT = ["mount", "-t", "tmpfs"]


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[str | None]:
    """``folder`` as a disk of its own inside the block; yields why that is not possible, or
    None."""
    folder.mkdir(parents=True)
    mount = [*MOUNT, "-o", f"size={megabytes}m", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        yield f"a small disk cannot be mounted: {error}"
        return
    if done.returncode != 0:
        yield f"a small disk cannot be mounted: {done.stderr.strip()}"
        return
    try:
        yield None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk of ``folder`` is full; returns it, to be deleted."""
    filler = folder / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    return filler
