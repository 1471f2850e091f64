"""Reads an exported folder or file in another process."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from remote_trainer.errors import ExportError
from remote_trainer.export.proof import Expected, Logprobs, Reading
from remote_trainer.run_dir import temporary_folder


def read_with_transformers(
    model: Path,
    base: Path,
    expected: Expected,
    dtype: str,
    adapter: Path | None = None,
    in_4bit: bool = False,
) -> tuple[Reading, Logprobs]:
    """Results of transformers for ``model`` (with ``adapter`` loaded by PEFT), and for the base
    model in the same precision, quantised if ``in_4bit``. Raises ExportError."""
    return _read(
        "remote_trainer.export.verify_transformers",
        {
            "model": str(model),
            "model_tokenizer": str(adapter or model),
            "adapter": adapter and str(adapter),
            "base": str(base),
            "in_4bit": in_4bit,
            "dtype": dtype,
            "expected": expected.to_json(),
        },
    )


def read_with_llama_cpp(
    model: Path, base: Path, expected: Expected, adapter: Path | None = None
) -> tuple[Reading, Logprobs]:
    """Results of llama.cpp for a GGUF (with the GGUF of an adapter), and for a GGUF of the base
    model that was made the same way. Raises ExportError."""
    return _read(
        "remote_trainer.llama_cpp.verify",
        {
            "model": str(model),
            "adapter": adapter and str(adapter),
            "base": str(base),
            "expected": expected.to_json(),
        },
    )


def _read(module: str, task: dict[str, Any]) -> tuple[Reading, Logprobs]:
    # Next to the export: the questions are user data, and the files of a killed process are removed
    # from there.
    with temporary_folder(Path(task["adapter"] or task["model"])) as scratch:
        ask, answer = scratch / "ask.json", scratch / "answer.json"
        ask.write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, "-m", module, str(ask), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not answer.exists():
            raise ExportError(_reason(done.stderr) or f"{module} ended with {done.returncode}")
        found = json.loads(answer.read_text(encoding="utf-8"))
    base: Logprobs = found.pop("base")
    return Reading(**found), base


def _reason(stderr: str) -> str:
    """The exception that ended a Python process; llama.cpp's log may follow it."""
    lines = stderr.strip().splitlines()
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or [""])[-1]
