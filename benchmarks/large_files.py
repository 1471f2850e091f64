"""Time and memory of `check` and `train` on a large data file, and on the first rows of it.

    python benchmarks/large_files.py MODEL [--rows 1000000] [--few 1000] [--folder FOLDER]

Writes a file of rows of 110 bytes. Each command is a process of its own with one thread: seconds
on the wall and of the processor, its largest resident set, and for `train` the seconds until the
first update begins.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROW_BYTES = 110
SETTINGS = {
    "reward.type": "token_f1",
    "training.num_generations": 2,
    "training.gradient_accumulation_steps": 2,
    "training.max_completion_length": 8,
    "training.max_steps": 1,
    "training.save_steps": 1,
    "evaluation.samples": 1,
    "evaluation.max_completion_length": 4,
    "guard.action": "off",
}
COMMAND = [sys.executable, "-m", "remote_trainer.cli"]


def main() -> None:
    """Measure and print one JSON object a line."""
    options = parse()
    folder = Path(options.folder or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    for rows in (options.few, options.rows):
        data = write_rows(folder / f"{rows}.jsonl", rows)
        config = write_config(folder / f"{rows}.yaml", data, options.model, folder / f"run-{rows}")
        for command in options.commands:
            extra = ["--resume", "never"] if command == "train" else []
            measured = run([*COMMAND, command, str(config), *extra], folder / f"run-{rows}")
            print(json.dumps({"command": command, "rows": rows, **measured}), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--folder")
    parser.add_argument("--commands", nargs="+", default=["check", "train"])
    return parser.parse_args()


def write_rows(path: Path, count: int) -> Path:
    """Rows of exactly 110 bytes, the line end included."""
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            row = {"prompt": f"What is the capital of country number {i}?", "answer": f"city {i}"}
            line = json.dumps(row)
            row["prompt"] += "?" * (ROW_BYTES - 1 - len(line))
            file.write(json.dumps(row) + "\n")
    return path


def write_config(path: Path, data: Path, model: str, output: Path) -> Path:
    text = [f"model: {{name: '{model}'}}", f"data: {{train: '{data}'}}", f"output_dir: '{output}'"]
    sections: dict[str, dict[str, Any]] = {}
    for name, value in SETTINGS.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    text += [f"{section}: {json.dumps(values)}" for section, values in sections.items()]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def run(command: list[str], folder: Path) -> dict[str, Any]:
    """What one command took; raises CalledProcessError if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started, begun = time.time(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            output.seek(0)
            raise SystemExit(output.read())
    seconds = time.perf_counter() - begun
    measured = {
        "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }
    metrics = folder / "metrics.jsonl"
    if "train" in command and metrics.exists():
        first = json.loads(metrics.read_text(encoding="utf-8").splitlines()[0])
        checkpoint = folder / "checkpoints" / "step-000001"
        end = checkpoint.stat().st_mtime if checkpoint.exists() else metrics.stat().st_mtime
        measured["first_update_begins"] = round(end - started - first["seconds_step"], 1)
    return measured


if __name__ == "__main__":
    main()
