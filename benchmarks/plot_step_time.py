"""Draw what an update costs against group size and prompt length, from results of step_time.py.

    python benchmarks/plot_step_time.py          # benchmarks/results/*.json -> docs/step_time.png

Needs matplotlib, which is in the extra ``bench``.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
RESULTS, PICTURE = ROOT / "benchmarks/results", ROOT / "docs/step_time.png"
OURS = "default, inverse_loss"
BASE = {"prompt_tokens": 256, "completion_tokens": 64, "generations": 8}
SIDES = {"stock": ("stock TRL", "#b2182b"), OURS: ("remote_trainer, defaults", "#2166ac")}


def points(varied: str, side: str) -> list[tuple[int, float]]:
    """(value of the varied option, median seconds of an update) where the rest is as in BASE."""
    found = []
    for path in sorted(RESULTS.glob("*.json")):
        result: dict[str, Any] = json.loads(path.read_text())
        options = result["options"]
        others = (name for name in BASE if name != varied)
        if side in result["runs"] and all(options[name] == BASE[name] for name in others):
            steps = [run["step"] for run in result["runs"][side]]
            found.append((options[varied], median(steps)))
    return sorted(found)


def main() -> None:
    """Write the picture."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    titles = {"generations": "completions of a prompt", "prompt_tokens": "tokens of a prompt"}
    for axis, (varied, label) in zip(axes, titles.items(), strict=True):
        for side, (name, colour) in SIDES.items():
            x, y = zip(*points(varied, side), strict=True)
            axis.plot(x, y, marker="o", color=colour, label=name)
        axis.set(xscale="log", xlabel=label, ylabel="seconds of an update")
        axis.set_ylim(bottom=0)
        axis.set_xticks(x, [str(value) for value in x])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_title("256 prompt tokens, 64 completion tokens", fontsize=10)
    axes[1].set_title("8 completions of 64 tokens", fontsize=10)
    axes[0].legend()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
