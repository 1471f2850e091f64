"""Expands ``~`` in paths, and refuses paths with an unclear meaning."""

import os
import re

LONGEST_NAME = 255
LONGEST_PATH = 4095
_UNEXPANDED = re.compile(r"\$(?:\w+|\{[^}]*\}|\([^)]*\)?)|`[^`]*`")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def expand(text: str) -> str:
    """``text`` with ``~`` or ``~name`` at its beginning as that home folder.

    Model ids, and words such as ``auto``, come back as they are. Raises ValueError that says what
    to write in place of what must never become the name of a file.
    """
    if (fault := _fault(text)) is not None:
        raise ValueError(fault)
    expanded = os.path.expanduser(text)
    if (fault := _tilde_fault(text, expanded) or _length_fault(expanded)) is not None:
        raise ValueError(fault)
    return expanded


def _fault(text: str) -> str | None:
    if not text.strip():
        return f"found {text!r}; write a path"
    if found := _CONTROL.search(text):
        return f"found {text!r}, which contains the character {found[0]!r}; remove it"
    if _SURROGATE.search(text):
        return f"found {text!r}, which is not UTF-8; rename the file or write its name in UTF-8"
    if found := _UNEXPANDED.search(text):
        return (
            f"found {text!r}, and variables such as {found[0]} are not expanded here: let the "
            "shell expand it (without single quotes), or write its value"
        )
    return None


def _tilde_fault(text: str, expanded: str) -> str | None:
    """No file or folder is ever made that a shell would take for a home folder."""
    first, *others = [part for part in expanded.split("/") if part not in ("", ".")] or [""]
    if expanded.startswith("~"):
        return (
            f"found {text!r}, and there is no user {first[1:]!r} on this machine; write the whole "
            "path"
        )
    beginning = first.startswith("~") and not expanded.startswith("/")
    if beginning or "~" in (first, *others):
        return (
            f"found {text!r}: ~ means the home folder only at the beginning of a path; write it "
            "there, or use another name"
        )
    return None


def _length_fault(expanded: str) -> str | None:
    longest = max((len(part.encode()) for part in expanded.split("/")), default=0)
    if longest > LONGEST_NAME:
        return f"a name in it is {longest} bytes long; at most {LONGEST_NAME} are allowed"
    if len(expanded.encode()) > LONGEST_PATH:
        return f"it is {len(expanded.encode())} bytes long; at most {LONGEST_PATH} are allowed"
    return None
