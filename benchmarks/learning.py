"""Which rewards teach the built-in model something? A study that can be interrupted.

    python benchmarks/learning.py run [--arms answer_likelihood sft ...] [--most 3]
    python benchmarks/learning.py table

Every arm gets the same rows, the same 60 updates of 16 completions and the same adapter. A part of
the training file is held out to judge by; the evaluation file is not read here. One process at a
time; an arm that is done has its file in results/learning/ and is not done again. While the file
``pause`` lies in the work folder no new arm is begun.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from learning_arms import ARMS, Arm, schedule
from step_time import cpu_model

from remote_trainer.run_dir import RunDir, read_jsonl

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "learning"
UPDATES, CHECKPOINT_EVERY, PROBE_EVERY = 60, 15, 5
DEV_ROWS = 72
SYSTEM_PROMPT = "You are a quiz bot. You reply with one or two words."
COLUMNS = (
    "accuracy_sampled",
    "accuracy_greedy",
    "exact_match",
    "answer_logprob",
    "completion_tokens_mean",
    "duplicate_share",
    "best_of_samples",
)
TRACED = (
    "step",
    "reward",
    "kl",
    "entropy",
    "completion_tokens_mean",
    "clipped_share",
    "distinct_3",
    "duplicate_share",
    "loop_share",
    "short_share",
    "length_to_reference",
    "filtered_share",
    "seconds_step",
)


def main() -> None:
    """Run arms that are not done yet, or print what is there."""
    options = parse()
    if options.command == "table":
        print(table())
        return
    split(options.work)
    left = [
        (arm, seed)
        for arm, seed in schedule()
        if arm in options.arms and seed in options.seeds and not result_file(arm, seed).exists()
    ]
    for arm, seed in left[: options.most]:
        while (options.work / "pause").exists():
            time.sleep(5)
        started = time.perf_counter()
        one(arm, seed, options.work)
        print(f"{arm}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--most", type=int, help="arms to run now")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "learning")
    return parser.parse_args()


def result_file(arm: str, seed: int) -> Path:
    """What is left of an arm that is done."""
    return RESULTS / f"{arm}-{seed}.json"


def split(work: Path) -> None:
    """train.jsonl and dev.jsonl out of the training file; no fact stands in both."""
    lines = (ROOT / "data" / "train_supervised.jsonl").read_text(encoding="utf-8").splitlines()
    dev = set(random.Random(0).sample(range(len(lines)), DEV_ROWS))
    work.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("dev", True), ("train", False)):
        part = [line for i, line in enumerate(lines) if (i in dev) == chosen]
        (work / f"{name}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")


def one(name: str, seed: int, work: Path) -> None:
    """Train an arm, judge its checkpoints, keep the numbers."""
    arm, folder = ARMS[name], RunDir(work / f"{name}-{seed}")
    config = work / f"{name}-{seed}.json"
    config.write_text(json.dumps(settings(arm, seed, folder, work), indent=1), encoding="utf-8")
    started = time.perf_counter()
    if arm.reward is None:
        call(HERE / "learning_sft.py", str(config))
    else:
        call("-m", "remote_trainer.cli", "train", str(config), "--quiet")
    seconds = time.perf_counter() - started
    judged = folder.root / "judged.json"
    call(HERE / "judge_checkpoints.py", str(config), str(work / "dev.jsonl"), str(judged))
    RESULTS.mkdir(parents=True, exist_ok=True)
    guard = json.loads(folder.guard.read_text()) if folder.guard.exists() else {}
    result = {
        "arm": name,
        "seed": seed,
        "date": date.today().isoformat(),
        "cpu": cpu_model(),
        "reward": arm.reward,
        "training": dict(arm.training),
        "seconds": round(seconds, 1),
        "updates": [traced(line) for line in read_jsonl(folder.metrics)],
        "probes": rounded(guard.get("probes", [])),
        "judged": rounded(json.loads(judged.read_text())),
    }
    result_file(name, seed).write_text(json.dumps(result) + "\n", encoding="utf-8")
    thin_out(folder)


def settings(arm: Arm, seed: int, folder: RunDir, work: Path) -> dict[str, Any]:
    """The config of an arm. The guard only looks, so that what goes wrong can be seen."""
    return {
        "data": {
            "train": str(ROOT / "data" / arm.train if arm.train else work / "train.jsonl"),
            "eval": str(work / "dev.jsonl"),
            "system_prompt": SYSTEM_PROMPT,
        },
        "reward": arm.reward or [{"type": "random"}],
        "training": {
            "learning_rate": 1.0e-4,
            "beta": 0.04,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "max_prompt_length": 64,
            "max_completion_length": 24,
            "max_steps": UPDATES,
            "save_steps": CHECKPOINT_EVERY,
            "keep_checkpoints": UPDATES // CHECKPOINT_EVERY,
            "seed": seed,
            **arm.training,
        },
        "evaluation": {"samples": 1, "every_steps": PROBE_EVERY},
        "guard": {"action": "warn"},
        "output_dir": str(folder),
    }


def call(*arguments: object) -> None:
    """A Python process of its own, from the project's root."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")


def traced(line: dict[str, Any]) -> dict[str, Any]:
    """What the guard looks at, and the time."""
    return {key: rounded(line.get(key)) for key in TRACED}


def rounded(value: Any) -> Any:
    """Five digits are enough for a table, a curve and a guard."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def thin_out(folder: RunDir) -> None:
    """Keep the adapters; the optimizer's moments are not needed any more."""
    for checkpoint in folder.complete_checkpoints():
        for file in checkpoint.iterdir():
            if file.name not in ("adapter.safetensors", "manifest.json"):
                file.unlink()
    shutil.rmtree(folder.completions, ignore_errors=True)


def results() -> list[dict[str, Any]]:
    """Every arm that is done."""
    return [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*-*.json"))]


def table() -> str:
    """Markdown: a line per arm and seed, before and after, on the rows held out of training."""
    head = ["arm", "seed", "update", *COLUMNS, "minutes"]
    lines = [head, ["---"] * len(head)]
    for result in results():
        for judged in result["judged"]:
            cells = [result["arm"], str(result["seed"]), str(judged["step"])]
            cells += [cell(judged.get(name)) for name in COLUMNS]
            lines.append([*cells, f"{minutes(result['updates'], judged['step']):.1f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def minutes(updates: Sequence[dict[str, Any]], step: int) -> float:
    """Training time up to an update, without probes."""
    return sum(float(line["seconds_step"]) for line in updates if line["step"] <= step) / 60


def cell(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
