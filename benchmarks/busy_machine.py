"""Seconds of one GRPO update beside other processes, by how long OpenMP's threads spin.

    python benchmarks/busy_machine.py --spins default 0 2000 --neighbours 0 1n 2n 2

Every count of spins is a process of its own, in which one update warms up; then endless loops of
the asked number and priority run beside one measured update after the other: ``2n`` are two of the
lowest priority, ``0`` none, and what is named twice is measured twice. The counts take turns.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from one_side import Clock, Task, config_of, ours
from transformers import TrainerCallback

LOOP = "while True: pass"
CLEARED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
Seconds = dict[str, dict[str, list[float]]]


def main() -> None:
    """Measure in turns, print the table, write the seconds to ``--output``."""
    options = parse()
    if options.child:
        print(json.dumps(updates(options)))
        return
    seconds: Seconds = {}
    for _ in range(options.turns):
        for spins in options.spins:
            for beside, took in measured(spins, options.neighbours):
                seconds.setdefault(spins, {}).setdefault(beside, []).append(took)
                print(f"{spins}, beside {beside}: {took:.2f} s", file=sys.stderr)
            if options.output:
                options.output.write_text(json.dumps(seconds, indent=1) + "\n")
    print(table(seconds, list(dict.fromkeys(options.neighbours))))


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    spins = "GOMP_SPINCOUNT, `passive`, or `default`: OpenMP as it comes"
    parser.add_argument("--spins", nargs="+", default=["default", "0", "2000"], help=spins)
    parser.add_argument("--neighbours", nargs="+", default=["0", "1n", "2n", "2"])
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--completion-tokens", type=int, default=64)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(spins: str, neighbours: list[str]) -> list[tuple[str, float]]:
    """(neighbours, seconds of an update beside them), measured in a process of its own."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--child"]
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--child"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment(spins),
    )
    return list(zip(neighbours, json.loads(done.stdout.splitlines()[-1]), strict=True))


def environment(spins: str) -> dict[str, str]:
    """This process's, with one way of waiting."""
    bare = {name: value for name, value in os.environ.items() if name not in CLEARED}
    if spins == "passive":
        return {**bare, "OMP_WAIT_POLICY": "PASSIVE"}
    # one_side.py loads torch before the package, which then sets nothing by itself.
    return bare if spins == "default" else {**bare, "GOMP_SPINCOUNT": spins}


class Beside(TrainerCallback):  # type: ignore[misc]
    """Keeps the asked neighbours running during each update but the first."""

    def __init__(self, neighbours: list[str]) -> None:
        self._neighbours = neighbours
        self._loops: list[subprocess.Popen[bytes]] = []

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == 0:
            return
        beside = self._neighbours[state.global_step - 1]
        priority = ["nice", "-n", "19"] if beside.endswith("n") else []
        self._loops = [
            subprocess.Popen([*priority, sys.executable, "-c", LOOP])
            for _ in range(int(beside.removesuffix("n")))
        ]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        for loop in self._loops:
            loop.kill()
            loop.wait()
        self._loops = []


def updates(options: argparse.Namespace) -> list[float]:
    """Seconds of one update beside each of the neighbours."""
    task = Task(
        prompt_tokens=options.prompt_tokens,
        completion_tokens=options.completion_tokens,
        generations=options.generations,
        updates=len(options.neighbours),
    )
    clock = Clock()
    with TemporaryDirectory() as folder:
        trainer, _ = ours(task, config_of(task), Path(folder), clock)
        trainer.add_callback(Beside(options.neighbours))
        trainer.train()
    return [step["step"] for step in clock.steps[1:]]


def table(seconds: Seconds, neighbours: list[str]) -> str:
    """Markdown: medians, and how many times the first column of the same line."""
    lines = [["spins", *neighbours], ["---"] * (1 + len(neighbours))]
    for spins, found in seconds.items():
        first = median(found[neighbours[0]])
        cells = [f"{median(found[b]):.2f} ({median(found[b]) / first:.2f})" for b in neighbours]
        lines.append([spins, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    main()
