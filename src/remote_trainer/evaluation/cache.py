"""Answers of a model before training, kept so that the next run on the same data need not ask."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from remote_trainer.cache_folder import cache_folder
from remote_trainer.evaluation.answers import EVALUATION_SEED, Answers
from remote_trainer.records import EncodedRow
from remote_trainer.run_dir import write_json

_LAYOUT = 4  # raise when Answers or the way they are drawn changes


def cached_answers(
    model_folder: Path,
    rows: Sequence[EncodedRow],
    settings: dict[str, Any],
    collect: Callable[[], Answers],
) -> Answers:
    """``collect()``, or what it returned earlier for this model, these rows and settings."""
    path = cache_folder() / "evaluations" / f"{_key(model_folder, rows, settings)}.json"
    if path.exists():
        return Answers.from_json(json.loads(path.read_text(encoding="utf-8")))
    answers = collect()
    write_json(path, answers.to_json())
    return answers


def _key(model_folder: Path, rows: Sequence[EncodedRow], settings: dict[str, Any]) -> str:
    """Everything the answers depend on; weight files count by name, size and time of writing."""
    digest = hashlib.sha256()
    identity = [_LAYOUT, EVALUATION_SEED, sorted(settings.items())]
    digest.update(json.dumps(identity, default=str).encode())
    for file in sorted(model_folder.iterdir()):
        if file.suffix == ".safetensors":
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}".encode())
        elif file.is_file():
            digest.update(file.read_bytes())
    for row in rows:
        digest.update(json.dumps([row.prompt_ids, dict(row.row.fields)]).encode())
    return digest.hexdigest()[:32]
