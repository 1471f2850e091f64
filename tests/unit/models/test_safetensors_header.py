"""Headers of safetensors files: whole ones are read, damaged ones refused by name."""

import json
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
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(UserInputError) as refused:
        tensors_in(file)
    assert str(refused.value).startswith(f"{file}: is not a complete safetensors file (")
    assert str(refused.value).endswith("; copy or download it again")
