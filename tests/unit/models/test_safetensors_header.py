"""Headers of safetensors files: whole ones are read, damaged ones refused by name."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.errors import UserInputError
from remote_trainer.models.safetensors_header import TensorFacts, tensors_in

TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
HEADER = json.dumps({"__metadata__": {"format": "pt"}, "a": TENSOR}).encode()
WEIGHTS = bytes(16)


def laid_out(header: bytes, weights: bytes = WEIGHTS, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + weights


def with_tensor(**facts: Any) -> bytes:
    return laid_out(json.dumps({"a": {**TENSOR, **facts}}).encode())


def test_a_whole_file_is_read_without_its_metadata(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(laid_out(HEADER))
    assert tensors_in(file) == {"a": TensorFacts("F32", (2, 2))}


DAMAGED = {
    "empty": b"",
    "not even a length": bytes(5),
    "the header cut off": laid_out(HEADER)[:30],
    "a length beyond every file": laid_out(HEADER, length=2**62),
    "another format": b"GGUF" + bytes(60),
    "no JSON": laid_out(b"hello, you"),
    "no UTF-8": laid_out(HEADER.replace(b'"a"', b'"a\xff"')),
    "a list": laid_out(b"[1]"),
    "a number for a tensor": laid_out(b'{"a": 3}'),
    "no type": laid_out(b'{"a": {"shape": [4], "data_offsets": [0, 16]}}'),
    "no offsets": with_tensor(data_offsets=None),
    "half of the offsets": with_tensor(data_offsets=[0]),
    "weights cut off": laid_out(HEADER, WEIGHTS[:-1]),
    "more than the weights": laid_out(HEADER, WEIGHTS + b"x"),
    "nested without end": laid_out(b"[" * 100_000),
    "a negative size": with_tensor(shape=[-2, -2]),
    "a size that is no integer": with_tensor(shape=[2.0, 2]),
    "a shape of a word": with_tensor(shape="ab"),
    "a type that is no word": with_tensor(dtype=4),
    "an end before the beginning": with_tensor(data_offsets=[16, 0]),
    "fewer bytes than its shape has": with_tensor(shape=[2, 3]),
    "an end that is infinite": with_tensor(data_offsets=[0, float("inf")]),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserInputError) as refused:
        tensors_in(file)
    assert str(refused.value).startswith(f"{file}: is not a complete safetensors file (")
    assert str(refused.value).endswith("; copy or download it again")


def test_a_header_of_ten_gigabytes_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with file.open("wb") as handle:
        handle.write((10 * 2**30).to_bytes(8, "little"))
        handle.truncate(10 * 2**30 + 8)
    with pytest.raises(UserInputError, match=r"its header has 10737418240 bytes, at most 33554432"):
        tensors_in(file)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(UserInputError, match="it is not a file"):
        tensors_in(tmp_path / "model.safetensors")
