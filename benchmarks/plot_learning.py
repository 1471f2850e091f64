"""The learning study as one picture: docs/learning.png. Needs the extra `bench`.

python benchmarks/plot_learning.py
"""

from collections.abc import Sequence
from math import nan
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.pyplot as plt
from learning import UPDATES, minutes, results

PANELS = {
    "accuracy_sampled": "right answers, sampled (share)",
    "accuracy_greedy": "right answers, greedy (share)",
    "exact_match": "exact match, greedy (share)",
    "answer_logprob": "log-prob of the reference (nats a token)",
    "completion_tokens_mean": "completion length (tokens)",
    "distinct_3": "different runs of three words (share)",
}
HERE = Path(__file__).parent


def main() -> None:
    """One panel a metric against updates, and the first one against minutes, too.

    Arms with more updates than the others would squeeze them and are left out.
    """
    arms: dict[str, list[dict[str, Any]]] = {}
    for result in results():
        if result["judged"][-1]["step"] == UPDATES:
            arms.setdefault(result["arm"], []).append(result)
    figure, axes = plt.subplots(2, 4, figsize=(20, 9))
    colours = plt.get_cmap("tab20")
    for place, (name, runs) in enumerate(arms.items()):
        style = {"color": colours(place % 20), "label": name, "marker": "o", "markersize": 3}
        for axis, key in zip(axes.flat, PANELS, strict=False):
            axis.plot(*curve(runs, key), **style)
        steps, values = curve(runs, "accuracy_sampled")
        times = [fmean(minutes(run["updates"], step) for run in runs) for step in steps]
        axes.flat[-2].plot(times, values, **style)
    for axis, title in zip(axes.flat, [*PANELS.values(), PANELS["accuracy_sampled"]], strict=False):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("updates")
        axis.grid(alpha=0.3)
    axes.flat[-2].set_xlabel("minutes of training (2 CPU cores)")
    axes.flat[-1].axis("off")
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), loc="center", fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE.parent / "docs" / "learning.png", dpi=80)


def curve(runs: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """(updates, mean over seeds); a hole where a value could not be measured."""
    steps = [judged["step"] for judged in runs[0]["judged"]]
    columns = [[run["judged"][i][key] for run in runs] for i in range(len(steps))]
    return steps, [nan if None in column else fmean(column) for column in columns]


if __name__ == "__main__":
    main()
