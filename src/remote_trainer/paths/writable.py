"""Tests whether a path can be written, without leaving files behind."""

import os
import tempfile
from pathlib import Path

ROOM_IN_NAME = len("..01234567.partial")
"""What a temporary name adds to the name of a file or folder that is being written."""
ROOM_IN_PATH = 128
"""Longest path of a file inside a folder of ours."""


def why_no_folder(folder: Path) -> str | None:
    """Why nothing can be written into ``folder``, which is made if need be; None: it can.

    Permission bits say little (they do not count for root, and some disks are read-only), so a
    folder is made in the nearest one that exists, and removed.
    """
    return _why_not(Path(os.path.abspath(folder)), Path(os.path.abspath(folder)))


def why_no_file(file: Path) -> str | None:
    """Why ``file`` cannot be written (or written anew), its folders made if need be; None: it
    can."""
    if os.path.isdir(file):
        return "is a folder; write the path of a file"
    if os.path.exists(file) and not os.path.isfile(file):
        return "is a device or a pipe; write the path of a file"
    whole = Path(os.path.abspath(file))
    return _why_not(whole, whole.parent)


def _why_not(path: Path, folder: Path) -> str | None:
    """``path``, absolute, is the folder itself or a file in it."""
    at = folder
    while not os.path.exists(at):
        if os.path.islink(at):
            return f"{at} is a broken link; repair it or write another path"
        at = at.parent
    if not os.path.isdir(at):
        return (
            "is a file; write the path of a folder"
            if at == path
            else f"{at} is a file and cannot contain a folder; write another path"
        )
    return _too_long(path, at) or _not_writable(at)


def _not_writable(folder: Path) -> str | None:
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=folder))
    except OSError as error:
        return f"cannot be written: {folder}: {error.strerror}; write another path"
    return None


def _too_long(path: Path, there: Path) -> str | None:
    """``there`` is on the disk in question."""
    name, whole = len(os.fsencode(path.name)), len(os.fsencode(path))
    most_name = os.pathconf(there, "PC_NAME_MAX") - ROOM_IN_NAME
    most_whole = os.pathconf(there, "PC_PATH_MAX") - ROOM_IN_PATH
    if name > most_name:
        return f"its name is {name} bytes long; at most {most_name} are possible here"
    if whole > most_whole:
        return f"the whole path is {whole} bytes long; at most {most_whole} are possible here"
    return None
