"""Seconds and memory of one GRPO update: remote_trainer against stock TRL on the same work.

    python benchmarks/step_time.py --prompt-tokens 256 --completion-tokens 64 --generations 8

Stock TRL (with the reward one completion at a time) and each of our variants take turns, every turn
in a process of its own, never two at the same time. Each process makes one update to warm up and
then measures. README.md beside this file says how to read the table.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from one_side import PHASES, Task

from remote_trainer.cpu.prepacked_linear import OrderedLinear
from remote_trainer.openmp import SETTINGS

HERE = Path(__file__).parent
DTYPES = {
    # base weights and adapter, sampling
    "float32": ("float32", "float32"),
    "default": ("float32", "auto"),
    "bfloat16": ("bfloat16", "bfloat16"),
}
GEMM_SIZE = 2048
CPU_NUMBERS = {"cpu family": "family", "model": "model"}
Runs = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Measure, print the table, and write everything to ``--output``."""
    options = parse()
    peaks = {name: gemm_gflops(getattr(torch, name)) for name in ("float32", "bfloat16")}
    runs: Runs = {}
    for turn in range(options.alternations):
        for name, task in sides(
            options, count_flops=turn == 0 and not options.no_arithmetic
        ).items():
            script, argument = HERE / "one_side.py", json.dumps(asdict(task))
            runs.setdefault(name, []).append(one(script, argument, side=task.side))
            print(f"turn {turn + 1}, {name}: {runs[name][-1]['step']:.2f} s", file=sys.stderr)
    agreement = None if options.no_agreement else one(HERE / "agreement.py")
    result = {
        "date": date.today().isoformat(),
        "machine": {"cpu": cpu_model(), "threads": torch.get_num_threads(), "gflops": peaks},
        "options": {k: v for k, v in vars(options).items() if k != "output"},
        "agreement": agreement,
        "runs": runs,
    }
    print(table(runs, peaks, options))
    if agreement:
        print(agreement_line(agreement))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--completion-tokens", type=int, default=64)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=1, help="prompts of one update")
    parser.add_argument(
        "--stock-micro-batch", type=int, help="for stock, where all of a prompt needs more memory"
    )
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--reward", nargs="+", default=["inverse_loss"])
    parser.add_argument("--alternations", type=int, default=3)
    parser.add_argument("--no-agreement", action="store_true")
    parser.add_argument("--no-arithmetic", action="store_true", help="do not count operations")
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    return parser.parse_args()


def sides(options: argparse.Namespace, count_flops: bool) -> dict[str, Task]:
    """What takes turns, stock first."""
    work = {
        "prompt_tokens": options.prompt_tokens,
        "completion_tokens": options.completion_tokens,
        "generations": options.generations,
        "prompts": options.prompts,
        "count_flops": count_flops,
    }
    tasks = {"stock": Task(side="stock", stock_micro_batch=options.stock_micro_batch, **work)}
    for dtype in options.dtype:
        for reward in options.reward:
            own, sampling = DTYPES[dtype]
            name = f"{dtype}, {reward}"
            tasks[name] = Task(dtype=own, sampling_dtype=sampling, reward=reward, **work)
    return tasks


def one(script: Path, *arguments: str, side: str = "stock") -> dict[str, Any]:
    """What a script prints as its last line, from a process of its own.

    Ours waits as ``train`` lets it; the script loads torch first, so that stock is as it comes.
    """
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**SETTINGS, **os.environ} if side == "ours" else None,
    )
    if done.returncode:
        raise SystemExit(f"{script.name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def gemm_gflops(dtype: torch.dtype) -> float:
    """What a product of two large square matrices reaches, in GFLOP/s; best of five.

    The best of torch's own product and of oneDNN's with a weight in its own order: on some
    processors they are far apart.
    """
    a = torch.randn(GEMM_SIZE, GEMM_SIZE).to(dtype)
    products: list[Callable[[], Any]] = [lambda: a @ a]
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        ordered = OrderedLinear(a, None)
        products.append(lambda: ordered(a))
    seconds = []
    for product in products:
        product()
        for _ in range(5):
            started = time.perf_counter()
            product()
            seconds.append(time.perf_counter() - started)
    return 2 * GEMM_SIZE**3 / min(seconds) / 1e9


def table(runs: Runs, peaks: dict[str, float], options: argparse.Namespace) -> str:
    """Markdown: a line per side."""
    head = ["side", *PHASES, "total, s", "tokens/s", "times faster than stock"]
    head += ["loaded MB", "peak MB", "memory relative to stock", "TFLOP", "share of GEMM peak"]
    lines = [head, ["---"] * len(head)]
    lines += [line(name, runs, peaks, options) for name in runs]
    title = f"{options.prompt_tokens}/{options.completion_tokens}/G={options.generations}"
    gemm = ", ".join(f"{name} {gflops:.0f} GFLOP/s" for name, gflops in peaks.items())
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{title}, {options.alternations} turns, medians (least to most); GEMM: {gemm}\n\n{rows}"


def line(name: str, runs: Runs, peaks: dict[str, float], options: argparse.Namespace) -> list[str]:
    """One side in numbers."""
    mine, theirs = runs[name], runs["stock"]
    tokens = options.prompts * options.generations * options.completion_tokens
    steps = [run["step"] for run in mine]
    grown = median(run["peak_mb"] - run["loaded_mb"] for run in mine)
    grown_stock = median(run["peak_mb"] - run["loaded_mb"] for run in theirs)
    tflop = mine[0]["tflop"]
    per_second = tflop * 1e3 / median(steps) if tflop else None
    return [
        name,
        *(f"{median(run[phase] for run in mine):.2f}" for phase in PHASES),
        spread(steps),
        f"{tokens / median(steps):.0f}",
        spread([a["step"] / b["step"] for a, b in zip(theirs, mine, strict=True)]),
        f"{median(run['loaded_mb'] for run in mine):.0f}",
        f"{median(run['peak_mb'] for run in mine):.0f}",
        f"{grown / grown_stock:.2f}",
        f"{tflop:.2f}" if tflop else "",
        f"{per_second / peaks[mine[0]['task']['dtype']]:.0%}" if per_second else "",
    ]


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def agreement_line(found: dict[str, Any]) -> str:
    """The numerical agreement in words."""
    return (
        f"\nfloat32 against stock on {found['tokens']} ragged tokens: log-probs differ by at most "
        f"{found['logprob_largest']:.1e}, the loss by {found['loss_difference']:.1e}, cosine of "
        f"the LoRA gradients {found['gradient_cosine']:.8f}"
    )


def cpu_model() -> str:
    """As the system names it, with family and model: the name alone may be just a brand."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    numbers = ", ".join(f"{name} {facts[key]}" for key, name in CPU_NUMBERS.items() if key in facts)
    return f"{facts.get('model name', 'unknown')}{f' ({numbers})' if numbers else ''}"


if __name__ == "__main__":
    main()
