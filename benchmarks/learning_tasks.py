"""Do the shipped settings also work on extraction and word problems? Can be interrupted.

    python benchmarks/learning_tasks.py run [--tasks extraction] [--arms base mix sft] [--jobs 2]
    python benchmarks/learning_tasks.py table
    python benchmarks/learning_tasks.py plot      # docs/learning_tasks.png; needs the extra `bench`

| arm | what |
| --- | --- |
| base | the model before training |
| plain | `reward: {type: supervised}` and otherwise the defaults of the schema |
| mix | configs/supervised.yaml |
| random | the same with random numbers as the reward |
| sft | supervised fine-tuning on the same rows for as much processor time as the updates of mix |

All arms have the data, system prompt and length limits of their task. The rows for the guard are
held out of the training file, so that no arm sees the evaluation file before `remote-trainer eval`
does. Every process has one thread. A result is a line of results/learning/tasks.jsonl; what stands
there is not run again. The tasks svamp and xquad need the files of fetch_public.py.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import yaml

from remote_trainer.run_dir import RunDir, append_jsonl, read_jsonl

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "learning" / "tasks.jsonl"
PICTURE = ROOT / "docs" / "learning_tasks.png"
MODEL = "builtin/smollm2-135m-instruct"
ARMS = ("base", "plain", "mix", "random", "sft")
SEEDS = (0, 1, 2)
STOPPED_BY_GUARD = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
MEASURED = {
    "accuracy_sampled": "sampled",
    "accuracy_greedy": "greedy",
    "exact_match": "exact match",
    "answer_logprob": "log-prob of the reference",
    "completion_tokens_mean": "tokens",
}
"""Keys of eval.json -> their heads in the table."""

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Task:
    """Rows, and what all arms share because of them."""

    rows: str
    """Training and evaluation file; "train" or "eval" stands for {}."""
    system_prompt: str
    max_prompt_length: int
    max_completion_length: int

    def file(self, part: str) -> Path:
        """The rows for ``train`` or ``eval``."""
        return ROOT / self.rows.format(part)

    def settings(self) -> dict[str, dict[str, Any]]:
        """The part of a config that no arm changes."""
        return {
            "data": {
                "train": str(self.file("train")),
                "eval": "auto",
                "system_prompt": self.system_prompt,
            },
            "training": {
                "max_prompt_length": self.max_prompt_length,
                "max_completion_length": self.max_completion_length,
            },
            "evaluation": {"max_completion_length": self.max_completion_length},
        }


FROM_TEXT = "You answer questions about a text. You reply with a few words from the text."
ONE_SENTENCE = (
    "You solve word problems. You reply with one short sentence that ends with the number."
)
TASKS: Mapping[str, Task] = {
    "extraction": Task("data/{}_extraction.jsonl", FROM_TEXT, 256, 32),
    "word_problems": Task("data/{}_word_problems.jsonl", ONE_SENTENCE, 256, 96),
    "xquad": Task("runs/public/{}_xquad.jsonl", FROM_TEXT, 512, 32),
    "svamp": Task("runs/public/{}_svamp.jsonl", ONE_SENTENCE, 256, 96),
}
SHIPPED_TASKS = ("extraction", "word_problems")


def main() -> None:
    """Run what is missing, or show what is there."""
    options = parse()
    if options.command == "table":
        print(table(read_jsonl(RESULTS)))
    elif options.command == "plot":
        plot(read_jsonl(RESULTS))
    else:
        with ThreadPoolExecutor(options.jobs) as pool:
            running = [
                pool.submit(run_arms, task, seed, options.arms, options.work)
                for seed in options.seeds
                for task in options.tasks
            ]
        for each in running:
            each.result()  # raises what went wrong


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("command", choices=["run", "table", "plot"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=SHIPPED_TASKS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "learning_tasks")
    return parser.parse_args()


def run_arms(task: str, seed: int, arms: Sequence[str], work: Path) -> None:
    """The missing arms of a task and seed, in the order in which they need each other."""
    for arm in sorted(arms, key=ARMS.index):
        if arm == "base" and seed != SEEDS[0]:
            continue  # nothing in it depends on the seed of training
        if found(task, arm, seed) is None:
            append_jsonl(RESULTS, run_arm(task, arm, seed, work))
            print(f"{task}, {arm}, seed {seed}: done", flush=True)


def found(task: str, arm: str, seed: int) -> Result | None:
    """The result that is there."""
    wanted = (task, arm, seed)
    lines = read_jsonl(RESULTS) if RESULTS.exists() else []
    return next((r for r in lines if (r["task"], r["arm"], r["seed"]) == wanted), None)


def run_arm(name: str, arm: str, seed: int, work: Path) -> dict[str, Any]:
    """Train and evaluate; a line of the result file."""
    from step_time import cpu_model  # loads torch, which `table` and `plot` do not need

    folder = RunDir(work / f"{name}-{arm}-{seed}")
    config = work / f"{name}-{arm}-{seed}.json"
    work.mkdir(parents=True, exist_ok=True)
    settings = config_of(TASKS[name], arm, seed, folder)
    config.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    trained = {} if arm == "base" else train(name, arm, seed, config, folder)
    return {
        "task": name,
        "arm": arm,
        "seed": seed,
        "date": date.today().isoformat(),
        "cpu": cpu_model(),
        **trained,
        "measured": evaluate(TASKS[name], arm, folder),
    }


def config_of(task: Task, arm: str, seed: int, folder: RunDir) -> dict[str, Any]:
    """The config of an arm: plain, or the shipped one with the rows and limits of the task."""
    settings: dict[str, Any] = {"reward": {"type": "supervised"}}
    if arm != "plain":
        shipped = (ROOT / "configs" / "supervised.yaml").read_text(encoding="utf-8")
        settings = yaml.safe_load(shipped)
    if arm == "random":
        settings["reward"] = {"type": "random"}
    for section, values in task.settings().items():
        settings[section] = {**settings.get(section, {}), **values}
    settings["training"]["seed"] = seed
    return {**settings, "output_dir": str(folder)}


def train(name: str, arm: str, seed: int, config: Path, folder: RunDir) -> dict[str, Any]:
    """Train; returns updates, the processor time they took, and whether the guard stopped."""
    log = config.with_suffix(".log")
    if arm == "sft":
        command = [HERE / "learning_sft.py", config, f"{budget(name, seed):.1f}"]
        call(command, log)
        share, code = 1.0, 0  # it logs processor time
    else:
        command = ["-m", "remote_trainer.cli", "train", config, "--quiet"]
        share, code = call(command, log, accepted=(0, STOPPED_BY_GUARD))
    seconds = [line["seconds_step"] for line in read_jsonl(folder.metrics)]
    return {
        "updates": len(seconds),
        "processor_seconds": round(share * sum(seconds), 1),
        "stopped": code == STOPPED_BY_GUARD,
    }


def budget(task: str, seed: int) -> float:
    """Processor seconds for fine-tuning."""
    mix = found(task, "mix", seed)
    if mix is None:
        raise SystemExit(f"{task}, sft, seed {seed}: needs the time of mix; add mix to --arms")
    return float(mix["processor_seconds"])


def evaluate(task: Task, arm: str, folder: RunDir) -> dict[str, Any]:
    """The numbers of `remote-trainer eval` on the evaluation file."""
    target: list[object] = [folder if arm in ("plain", "mix", "random") else MODEL]
    if arm in ("base", "sft"):
        target += ["--set", f"data.system_prompt={task.system_prompt}"]
        target += ["--set", f"evaluation.max_completion_length={task.max_completion_length}"]
    if arm == "sft":
        target += ["--set", f"model.adapter={folder.adapter}"]
    log = folder.root.with_suffix(".eval.json")
    command = ["-m", "remote_trainer.cli", "eval", *target, "--data", task.file("eval"), "--json"]
    call(command, log)
    after: dict[str, Any] = json.loads(log.read_text(encoding="utf-8"))["after"]
    return after


def call(
    arguments: Sequence[object], output: Path, accepted: Sequence[int] = (0,)
) -> tuple[float, int]:
    """Run Python with one thread; (processor seconds per second, exit code). Its standard output
    is written to a file, its errors to another one beside it."""
    command = [sys.executable, *map(str, arguments)]
    errors, started = output.with_suffix(".err"), perf_counter()
    with output.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, stdout=out, stderr=err
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accepted:
        raise SystemExit(f"{' '.join(command)}\n{errors.read_text()[-3000:]}")
    return (used.ru_utime + used.ru_stime) / (perf_counter() - started), process.returncode


def by_arm(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """(task, arm) -> its seeds, in the order of TASKS and ARMS."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for task in TASKS:
        for arm in ARMS:
            if group := [r for r in results if (r["task"], r["arm"]) == (task, arm)]:
                groups[task, arm] = group
    return groups


def table(results: Sequence[Result]) -> str:
    """Markdown: a line for each task and arm, means over seeds with the smallest and largest."""
    head = ["task", "arm", "seeds", *MEASURED.values(), "updates", "processor minutes", "stopped"]
    lines = [head, ["---"] * len(head)]
    for (task, arm), group in by_arm(results).items():
        cells = [task, arm, str(len(group))]
        cells += [spread([result["measured"][key] for result in group]) for key in MEASURED]
        if arm == "base":
            cells += ["-"] * 3
        else:
            cells += [spread([r["updates"] for r in group], 0)]
            cells += [spread([r["processor_seconds"] / 60 for r in group], 1)]
            cells += [str(sum(r["stopped"] for r in group))]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """The mean, and in parentheses the smallest and largest value if there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{fmean(known):.{digits}f}"
    if len(known) == 1:
        return mean
    return f"{mean} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def plot(results: Sequence[Result]) -> None:
    """Sampled and greedy accuracy: a bar for the mean of an arm, a point for each seed."""
    import matplotlib.pyplot as plt  # only the extra `bench` has it, and only this needs it

    groups = by_arm(results)
    tasks = list(dict.fromkeys(task for task, _ in groups))
    keys = ("accuracy_sampled", "accuracy_greedy")
    figure, axes = plt.subplots(
        len(tasks), len(keys), figsize=(10, 3.5 * len(tasks)), squeeze=False
    )
    for row, task in zip(axes, tasks, strict=True):
        arms = {arm: group for (name, arm), group in groups.items() if name == task}
        for axis, key in zip(row, keys, strict=True):
            values = {arm: [r["measured"][key] for r in group] for arm, group in arms.items()}
            axis.bar(list(values), [fmean(each) for each in values.values()], color="#9ecae1")
            for arm, each in values.items():
                axis.plot([arm] * len(each), each, "k.", markersize=6)
            axis.set_title(f"{task}: right answers, {MEASURED[key]} (share)", fontsize=10)
            axis.set_ylim(0, 1)
            axis.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=80)


if __name__ == "__main__":
    main()
