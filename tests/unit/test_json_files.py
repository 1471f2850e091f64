"""JSON files that others made: what is read, and what is refused before or while it is read."""

import os
from pathlib import Path

import pytest

from remote_trainer.json_files import MOST_BYTES, parse_json, read_json, read_object, read_text


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ["\\ud83d\\ude00", 1]}')
    assert read_object(tmp_path / "a.json") == {"a": ["\N{GRINNING FACE}", 1]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1]", "it holds a list, not an object"),
        (b"{", "Expecting property name"),
        (b"\xff", "invalid start byte"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\uDfff": 1}', "surrogates not allowed"),
        (b'{"a": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_other_content_is_a_value_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_object(tmp_path / "a.json")


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    (tmp_path / "endless").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "endless", tmp_path):
        with pytest.raises(ValueError, match="it is not a file"):
            read_json(path)
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(FileNotFoundError, match="No such file"):
        read_json(tmp_path / "link")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(10 * 2**30)
    with pytest.raises(ValueError, match=f"{10 * 2**30} bytes, at most {MOST_BYTES} are read"):
        read_text(tmp_path / "huge")


def test_deep_text_is_a_value_error() -> None:
    assert parse_json(b"[[1]]") == [[1]]
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json('{"a":' * 100_000)
