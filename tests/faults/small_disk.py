"""Disks that this process mounts, where it may."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def mount(*arguments: object) -> str | None:
    """Why ``mount ARGUMENTS`` is not possible here; None: it is done."""
    try:
        done = subprocess.run(
            ["mount", *map(str, arguments)], capture_output=True, text=True, check=False
        )
    except OSError as error:
        return f"nothing can be mounted: {error}"
    return f"nothing can be mounted: {done.stderr.strip()}" if done.returncode else None


def unmount(folder: Path, *options: str) -> None:
    """Take a disk away from ``folder``."""
    subprocess.run(["umount", *options, str(folder)], check=True)


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[str | None]:
    """``folder``, which is made, is a disk of its own inside the block; yields why that is not
    possible, or None."""
    folder.mkdir(parents=True)
    why_not = mount("-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder)
    try:
        yield why_not
    finally:
        if why_not is None:
            unmount(folder)


def fill(folder: Path) -> Path:
    """Write a file until the disk of ``folder`` is full; returns it, to be deleted."""
    filler = folder / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    return filler
