"""Compares what `check --probe` says of a run with what the run then does.

    python benchmarks/check_accuracy.py [CONFIG ...] [--steps N] [--json FILE]

Each config is checked with --probe and trained in processes of their own, in a temporary folder.
Rows, updates and prompt tokens must be equal, completion tokens within their bound; peak memory and
time per update are compared by their ratio. Times need a quiet machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

CONFIGS = ("configs/supervised.yaml", "configs/unsupervised.yaml")
CLOSE = 0.3
"""Largest relative difference of peak memory and time."""
QUICK = ("evaluation.rows=8", "evaluation.samples=1")


@dataclass(frozen=True)
class Comparison:
    """One number of the check and of the run."""

    name: str
    predicted: float
    measured: float
    right: bool


def equal(name: str, predicted: float, measured: float) -> Comparison:
    return Comparison(name, predicted, measured, predicted == measured)


def bound(name: str, predicted: float, measured: float) -> Comparison:
    return Comparison(name, predicted, measured, measured <= predicted)


def close(name: str, predicted: float, measured: float) -> Comparison:
    return Comparison(name, predicted, measured, abs(predicted / measured - 1) <= CLOSE)


def comparisons(check: Mapping[str, Any], run: Path) -> Iterator[Comparison]:
    """``check``: the output of `check --probe --json`; ``run``: the folder of the finished run."""
    metrics = read_lines(run / "metrics.jsonl")
    report = json.loads((run / "data_report.json").read_text())
    for part in ("train", "eval"):
        told, found = check["data"][part], report[part]
        yield equal(f"{part} rows", told["rows_kept"], found["rows_kept"])
        for key in ("min", "median", "max", "total"):
            told_tokens, found_tokens = told["prompt_tokens"][key], found["prompt_tokens"][key]
            yield equal(f"{part} prompt tokens, {key}", told_tokens, found_tokens)
    yield equal("updates", check["batches"]["updates"], metrics[-1]["step"])
    completions = [line for file in run.glob("completions/*.jsonl") for line in read_lines(file)]
    tokens = sum(line["tokens"] for line in completions)
    yield bound("completion tokens, at most", check["batches"]["most_completion_tokens"], tokens)
    cost = check["forecast"]["probe"]["cost"]
    peak = max(line["peak_memory_mb"] for line in metrics)
    yield close("peak memory, MB", cost["peak_memory_mb"], peak)
    # The first update also fills caches; a probe leaves it out, too.
    seconds = [line["seconds_step"] for line in metrics][1:]
    yield close("seconds per update, median", cost["seconds_per_update"], median(seconds))


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def checked_and_trained(config: str, steps: int, folder: Path) -> list[Comparison]:
    """Check a config, train it, and compare."""
    settings = [f"training.max_steps={steps}", f"output_dir={folder / 'run'}", *QUICK]
    overrides = [part for each in settings for part in ("--set", each)]
    check = json.loads(command("check", config, "--probe", "--json", *overrides))
    command("train", config, "--quiet", *overrides)
    return list(comparisons(check, folder / "run"))


def command(*arguments: str) -> str:
    """Output of a command of the program; its errors are shown."""
    call = [sys.executable, "-m", "remote_trainer.cli", *arguments]
    return subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True).stdout


def table(found: Sequence[Comparison]) -> str:
    lines = [f"{'':32}{'check':>12}{'run':>12}"]
    for each in found:
        mark = "" if each.right else "  WRONG"
        lines.append(f"{each.name:32}{each.predicted:12g}{each.measured:12g}{mark}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("configs", nargs="*", default=CONFIGS)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args()
    found = {}
    for config in options.configs:
        with tempfile.TemporaryDirectory() as folder:
            found[config] = checked_and_trained(config, options.steps, Path(folder))
        print(f"{config}\n{table(found[config])}\n", flush=True)
    if options.json:
        numbers = {config: [asdict(each) for each in list_] for config, list_ in found.items()}
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0 if all(each.right for list_ in found.values() for each in list_) else 1


if __name__ == "__main__":
    sys.exit(main())
