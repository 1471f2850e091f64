"""Is a run that is killed at random moments the same run? The built-in model, on a CPU.

    python benchmarks/random_kills.py --work /tmp/kills --kills 6

Trains with a shipped config twice, with the command of a user: once undisturbed, once killed
(SIGKILL) at random moments and started again each time. A moment is a time of the undisturbed run:
so long after one of its updates (or after its start). Prints one line of JSON.

The work folder holds everything, so a call that was interrupted goes on with the same command.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remote_trainer.cache_folder import cache_folder
from remote_trainer.run_dir import RunDir, read_jsonl, write_json

ROOT = Path(__file__).parents[1]
TIMES = re.compile(r"seconds|tokens_per_second|memory")
POLL_S = 0.02
LATEST = 0.95
"""Share of the undisturbed run before which the last moment is: a bit slower, it still comes."""


@dataclass(frozen=True)
class Moment:
    """``seconds`` after the run has written the line of ``update``; 0: after its start."""

    update: int
    seconds: float


def main() -> None:
    """Train, kill, compare."""
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    ready = RunDir(options.work / "undisturbed").report.exists()
    timeline_file = options.work / "timeline.json"
    if not (ready and timeline_file.exists()):
        write_json(timeline_file, timeline(options))
    times = json.loads(timeline_file.read_text())
    moments = random_moments(times, options.kills, random.Random(options.seed))
    killed = kill_at(moments, options)
    began = time.monotonic()
    finish(options, "killed")
    whole, again = (numbers(RunDir(options.work / name)) for name in ("undisturbed", "killed"))
    result = {
        "updates": options.updates,
        "kills": len(killed),
        "seed": options.seed,
        "equal": whole == again,
        "differs": [key for key in whole if whole[key] != again[key]],
        "adapter_sha256": again["adapter"],
        "seconds_undisturbed": round(times[-1], 1),
        "seconds_after_last_kill": round(time.monotonic() - began, 1),
        "killed": killed,
    }
    print(json.dumps(result))
    sys.exit(0 if result["equal"] else 1)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of both runs")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--save-steps", type=int, default=3)
    parser.add_argument("--eval-rows", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--config", default="configs/supervised.yaml")
    return parser.parse_args()


def start(options: argparse.Namespace, name: str) -> "subprocess.Popen[bytes]":
    """The command of a user, with output in the work folder."""
    settings = {
        "training.max_steps": options.updates,
        "training.save_steps": options.save_steps,
        "evaluation.rows": options.eval_rows,
        "evaluation.samples": 2,
        "output_dir": options.work.resolve() / name,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "remote_trainer.cli", "train", options.config, *words]
    cache = cache_of(options.work / f"{name}-cache")
    environment = {**os.environ, "REMOTE_TRAINER_CACHE": str(cache)}
    with (options.work / f"{name}.txt").open("ab") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)


def cache_of(folder: Path) -> Path:
    """A cache with the models of the user's, without the answers before training: each of the runs
    computes its own."""
    folder.mkdir(exist_ok=True)
    models = cache_folder() / "models"
    models.mkdir(parents=True, exist_ok=True)
    if not (folder / "models").exists():
        (folder / "models").symlink_to(models.resolve())
    return folder.resolve()


def updates_done(folder: RunDir) -> int:
    """Lines of metrics.jsonl."""
    return folder.metrics.read_bytes().count(b"\n") if folder.metrics.exists() else 0


def timeline(options: argparse.Namespace) -> list[float]:
    """Train undisturbed; seconds from the start to the line of each update, and to the end."""
    folder = RunDir(options.work / "undisturbed")
    began = time.monotonic()
    times: list[float] = []
    process = start(options, "undisturbed")
    while process.poll() is None:
        # After an interrupted call, earlier updates count as done at the start.
        times += [time.monotonic() - began] * (updates_done(folder) - len(times))
        time.sleep(POLL_S)
    require(process.returncode == 0, "the undisturbed run failed", options, "undisturbed")
    return [*times, time.monotonic() - began]


def random_moments(times: Sequence[float], count: int, draw: random.Random) -> list[Moment]:
    """Moments in the order in which an undisturbed run would meet them."""
    found = []
    for second in sorted(draw.uniform(0, LATEST * times[-1]) for _ in range(count)):
        passed = [each for each in times if each <= second]
        found.append(Moment(len(passed), second - (passed[-1] if passed else 0.0)))
    return found


def kill_at(moments: Sequence[Moment], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The run, killed at each moment that is left; returns what it was doing at all of them."""
    file = options.work / "killed.json"
    done: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for moment in moments[len(done) :]:
        done.append(kill(moment, options))
        write_json(file, done)
    return done


def kill(moment: Moment, options: argparse.Namespace) -> dict[str, Any]:
    """Start the run and kill it at a moment; returns what it was doing."""
    folder = RunDir(options.work / "killed")
    process = start(options, "killed")
    while updates_done(folder) < moment.update:
        require(process.poll() is None, "ended before it was killed", options, "killed")
        time.sleep(POLL_S)
    # Where an earlier process did that update already: so long after the start of this one.
    time.sleep(moment.seconds)
    require(process.poll() is None, "ended before it was killed", options, "killed")
    process.kill()
    require(process.wait() == -signal.SIGKILL, "was not killed", options, "killed")
    whole = folder.complete_checkpoints()
    beat = json.loads(folder.heartbeat.read_text()) if folder.heartbeat.exists() else {}
    return {
        **asdict(moment),
        "phase": beat.get("phase"),
        "in_update": beat.get("update"),
        "checkpoint": folder.step_of(whole[-1]) if whole else 0,
    }


def finish(options: argparse.Namespace, name: str) -> None:
    """The same command once more, to its end."""
    require(start(options, name).wait() == 0, "did not end well", options, name)


def require(true: bool, told: str, options: argparse.Namespace, name: str) -> None:
    """Ends the script with what the command printed."""
    if not true:
        printed = (options.work / f"{name}.txt").read_text(errors="replace")
        sys.exit(f"{name}: {told}\n{printed[-3000:]}")


def numbers(folder: RunDir) -> dict[str, Any]:
    """What a run leaves, without times and memory."""
    weights = (folder.adapter / "adapter_model.safetensors").read_bytes()
    lines = read_jsonl(folder.metrics)
    return {
        "steps": [line["step"] for line in lines],
        "metrics": without_times(lines),
        "completions": {
            file.name: read_jsonl(file) for file in sorted(folder.completions.iterdir())
        },
        "eval": without_times(json.loads(folder.eval.read_text())),
        "guard": without_times(json.loads(folder.guard.read_text())),
        "adapter": hashlib.sha256(weights).hexdigest(),
    }


def without_times(value: Any) -> Any:
    """The same JSON value without keys that hold times or memory."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if not TIMES.search(key)}
    return [without_times(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
