"""Every checkpoint of a run on held-out rows, the untrained model first; one model load.

python benchmarks/judge_checkpoints.py config.json rows.jsonl output.json
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, load_config
from remote_trainer.data.encode import encode_rows
from remote_trainer.data.load import load_eval_rows
from remote_trainer.engines.protocol import Backend
from remote_trainer.evaluation import collect_answers, length_limit, measure
from remote_trainer.models.resolve import resolve_model
from remote_trainer.pipeline.backend import load_backend
from remote_trainer.records import AdapterSettings, EncodedRow
from remote_trainer.run_dir import RunDir, write_json
from remote_trainer.trainer import checkpoint

SAMPLES = 4


def main(config_file: str, rows_file: str, output: str) -> None:
    """Write one set of numbers per checkpoint."""
    config = load_config(config_file)
    backend = load_backend(resolve_model(config.model.name), config)
    lora = config.lora
    backend.add_adapter(AdapterSettings(lora.r, lora.alpha, 0.0, lora.target_modules, seed=0))
    rows, _ = load_eval_rows(Path(rows_file), config)
    encoded, _ = encode_rows(rows, backend.prompt_tokenizer, config, [])
    start = Path(rows_file).with_suffix(".start.json")
    if not start.exists():  # a fresh adapter changes nothing, so all runs share this one
        write_json(start, {"step": 0, **judge(backend, encoded, config)})
    judged = [json.loads(start.read_text())]
    for folder in RunDir(config.output_dir).complete_checkpoints():
        checkpoint.read_adapter(folder, backend.model)
        step = json.loads((folder / "manifest.json").read_text())["step"]
        judged.append({"step": step, **judge(backend, encoded, config)})
    write_json(Path(output), judged)


def judge(backend: Backend, rows: Sequence[EncodedRow], config: RunConfig) -> dict[str, Any]:
    """eval.json's numbers, and the share of rows with at least one right sample."""
    limit = length_limit(rows, "answer", backend, *config.answer_lengths())
    answers = collect_answers(backend, rows, "answer", SAMPLES, limit)
    measured = measure(rows, answers, backend.prompt_tokenizer, "answer", None)
    sampled = measured.per_row["accuracy_sampled"]
    return {
        **{key: value for key, value in measured.metrics.items() if key != "by_kind"},
        "best_of_samples": sum(bool(value) for value in sampled) / len(sampled),
        "per_row": sampled,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
