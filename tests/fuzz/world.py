"""The folder in which commands run: a model, data, an adapter and a finished run, all valid."""

import csv
import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

ORIGINAL = Path(__file__).parents[1] / "run_folders" / "e3d3e9b"
CONFIGS = Path(__file__).parents[2] / "configs"
MARK = "outside/mark"
"""Beside the folder; made only by code that was carried by an input."""

ROWS: list[Any] = [
    {"prompt": "What is the capital of France?", "answer": "Paris", "kind": "geography"},
    {"prompt": "What is 2 + 3?", "answer": 5},
    {"prompt": [{"role": "user", "content": "Hi"}], "answer": ["a", "b", True, 1.5]},
    {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": "Hi."},
        ]
    },
    {
        "prompt": "weather?",
        "answer": "sunny",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    },
    {"prompt": "one more", "answer": "x", "other": {"a": [1, 2]}},
]
COMPLETIONS: list[Any] = [
    {"prompt": "What is 2 + 3?", "completion": "five", "answer": "5"},
    {"prompt": [{"role": "user", "content": "Hi"}], "completion": "Hello", "answer": "Hello"},
    {"prompt": "a", "completion": [{"role": "assistant", "content": "b"}], "answer": ["c"]},
]
ANSWERS: list[Any] = [
    {
        "source": f"eval.jsonl:{i}",
        "prompt": "What is 2 + 3?",
        "references": ["5"],
        "before": {"greedy": {"text": "4", "right": right}, "sampled": [{"text": "5", "right": 1}]},
        "after": {"greedy": {"text": "5", "right": True}, "sampled": [{"text": "5", "right": 1}]},
    }
    for i, right in enumerate((False, True), start=1)
]


class _Marks:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch ../{MARK}",))


def make_world(root: Path) -> Path:
    """A new ``home`` in ``root``; everything that commands may write stands in ``root``."""
    home = root / "home"
    shutil.copytree(ORIGINAL, home)
    (root / "outside").mkdir()
    (home / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (home / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in COMPLETIONS))
    (home / "run" / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ANSWERS))
    (home / "train.csv").write_text(_as_csv())
    _write_parquet(home)
    shutil.copytree(home / "run" / "adapter", home / "start")
    _finish_and_stop(home)
    for name in ("pytorch_model.bin", "training_args.bin", "adapter_model.bin", "x.pt"):
        for folder in ("model", "start", "run/adapter", "run/checkpoints/step-000006"):
            (home / folder / name).write_bytes(pickle.dumps(_Marks()))
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model.safetensors"}}
    (home / "index.json").write_text(json.dumps(index))
    heartbeat = {
        "pid": 1, "time": "2026-01-01T00:00:00+00:00", "phase": "training", "phase_seconds": 1.0,
        "update": 3, "memory_used": 950, "memory_limit": 1000, "clean_end": False, "error": None,
    }  # fmt: skip
    (home / "run" / "heartbeat.json").write_text(json.dumps(heartbeat))
    base = {
        "name": "model", "revision": None, "path": str(home / "model"), "commit": None,
        "weights_sha256": "0" * 64, "made_in": str(home),
    }  # fmt: skip
    (home / "base.json").write_text(json.dumps(base))
    return home


def _finish_and_stop(home: Path) -> None:
    """What the old run lacks of a finished one, and a second run that was stopped."""
    (home / "run" / "report.html").write_text("<!doctype html>")
    proof = json.loads((home / "run" / "adapter" / "proof.json").read_text())
    merged = home / "run" / "merged_16bit"
    merged.mkdir()
    (merged / "proof.json").write_text(json.dumps({**proof, "format": "merged_16bit"}))
    shutil.copytree(home / "run", home / "stopped")
    shutil.rmtree(home / "stopped" / "adapter")
    (home / "stopped" / "eval.json").unlink()


def _as_csv() -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["prompt", "answer", "kind"])
    writer.writerows([f"What is {i} + {i}, or\nelse?", 2 * i, '"x"'] for i in range(6))
    return text.getvalue()


def _write_parquet(home: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {
        "prompt": [f"What is {i} + {i}?" for i in range(6)],
        "answer": [["a"], ["b", "c"], [], None, ["d"], ["e"]],
        "score": [0.5] * 6,
    }
    pq.write_table(pa.table(rows), home / "train.parquet")
    part = pa.table({"prompt": pa.array(["a" * 40]).take(pa.array([0] * 500_000))})
    with pq.ParquetWriter(home / "rows.bomb", part.schema, compression="zstd") as writer:
        for _ in range(60):
            writer.write_table(part)
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), ["a" * 2_000_000])
    pq.write_table(pa.table({"prompt": long}), home / "long.bomb", compression="zstd")
