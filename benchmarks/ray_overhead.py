"""What Ray Train costs: seconds of an update of `train --workers 1` against `train`.

    python benchmarks/ray_overhead.py --turns 2

Both train with the same config, seed and number of threads, in turns, every run in a process of its
own, never two at the same time. Start-up is not measured. Needs the extra ray.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from remote_trainer.errors import EXIT_TERMINATED
from remote_trainer.run_dir import RunDir, file_sha256, read_jsonl

ROOT = Path(__file__).parents[1]
SIDES: dict[str, list[str]] = {"plain": [], "one worker": ["--workers", "1"]}


def main() -> None:
    """Train in turns and print a line per side and the ratio of the medians."""
    options = parse()
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    results = set()
    for turn in range(options.turns):
        for side, words in SIDES.items():
            with tempfile.TemporaryDirectory() as folder:
                run = train(options, Path(folder) / "run", words)
                taken = [line["seconds_step"] for line in read_jsonl(run.metrics)]
                results.add(adapter_hash(run, options.updates))
            counted = taken[options.warm_up : options.updates]
            seconds[side] += counted
            print(f"turn {turn + 1}, {side}: {shown(counted)}", file=sys.stderr)
    for side, found in seconds.items():
        print(f"{side}: {shown(found)}")
    ratio = median(seconds["one worker"]) / median(seconds["plain"])
    print(f"an update with Ray takes {ratio:.3f} times as long")
    print(f"all adapters are equal: {len(results) == 1}")


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/supervised.yaml")
    parser.add_argument("--updates", type=int, default=8, help="of a run")
    parser.add_argument("--warm-up", type=int, default=2, help="first updates that do not count")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def train(options: argparse.Namespace, folder: Path, words: list[str]) -> RunDir:
    """A run without held-out rows and guard, stopped after ``options.updates``."""
    settings = {
        "training.max_steps": 100 * options.updates,
        "training.save_steps": options.updates,
        "data.eval": "none",
        "guard.action": "off",
        "output_dir": folder,
    }
    command = [sys.executable, "-m", "remote_trainer.cli", "train", options.config, *words]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    run, log = RunDir(folder), folder.with_suffix(".log")
    with log.open("w") as told:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=told, stderr=told)
        while process.poll() is None and len(read_jsonl(run.metrics)) <= options.updates:
            time.sleep(0.1)
        process.terminate()
        if process.wait() != EXIT_TERMINATED:
            raise SystemExit(f"{' '.join(command)} ended early:\n{log.read_text()}")
    return run


def adapter_hash(run: RunDir, step: int) -> str:
    """SHA-256 of the adapter in the checkpoint of an update."""
    [folder] = [each for each in run.complete_checkpoints() if run.step_of(each) == step]
    return file_sha256(folder / "adapter.safetensors")


def shown(seconds: list[float]) -> str:
    """Median, least and most."""
    return f"{median(seconds):.3f} s an update ({min(seconds):.3f} to {max(seconds):.3f})"


if __name__ == "__main__":
    main()
