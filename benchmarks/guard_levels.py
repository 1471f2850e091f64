"""How the guard's levels do on recorded runs: false alarms, misses, and when it would stop.

    python benchmarks/guard_levels.py            # how often each alarm fired; `make docs` asks, too
    python benchmarks/guard_levels.py --values   # furthest value of every signal in every run

A recorded run is judged by its checkpoints on the rows held out of training, not by the guard: it
is bad if at any checkpoint the share of right greedy answers is over 10 points below the start, and
good if it never is below by more than 3 points and right sampled answers became more.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_trainer.guard import ALARMS, Finding, Guard
from remote_trainer.guard.alarms import signals_of
from remote_trainer.guard.signals import BASELINE_LINES, WINDOW_LINES

RESULTS = Path(__file__).parent / "results" / "learning"
Run = Mapping[str, Any]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", action="store_true")
    runs = recorded_runs()
    print(values_table(runs) if parser.parse_args().values else fired_table(runs))


def recorded_runs() -> list[Run]:
    """The runs that were probed."""
    runs = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*-*.json"))]
    return [run for run in runs if run["probes"]]


def verdict(run: Run) -> str:
    """good, bad or neither; see above."""
    start, *later = run["judged"]
    changes = [judged["accuracy_greedy"] - start["accuracy_greedy"] for judged in later]
    gain = later[-1]["accuracy_sampled"] - start["accuracy_sampled"]
    if min(changes) < -0.10:
        return "bad"
    return "good" if min(changes) >= -0.03 and gain > 0 else "neither"


def replay(run: Run) -> list[Finding]:
    """What the guard would have found with the levels of today."""
    guard = Guard()
    probes = {probe["step"]: probe for probe in run["probes"]}
    guard.see_probe(0, probes[0])
    for line in run["updates"]:
        guard.see_update(line)
        if line["step"] in probes:  # behind the line of its update, as in training
            guard.see_probe(line["step"], probes[line["step"]])
    return guard.findings


def fired(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """Alarm -> verdict -> in how many of these runs it warned or stopped, and in how many it
    stopped: ``3 / 1``."""
    judged = [(verdict(run), replay(run)) for run in runs]
    return {
        name: {kind: _count([f for k, f in judged if k == kind], name) for kind in ("good", "bad")}
        for name in ALARMS
    }


def _count(runs: Sequence[Sequence[Finding]], name: str) -> str:
    rung = [{f.severity for f in findings if f.alarm == name} for findings in runs]
    return f"{sum(map(bool, rung))} / {sum('stop' in severities for severities in rung)}"


def fired_table(runs: Sequence[Run]) -> str:
    """Of each alarm, how many good runs it disturbs and how many bad ones it catches; of each run,
    when it stops."""
    lines = ["| alarm | good runs warned / stopped | bad runs warned / stopped |"]
    lines += ["| --- | --- | --- |"]
    lines += [f"| {name} | {of['good']} | {of['bad']} |" for name, of in fired(runs).items()]
    for run in runs:
        stop = next((f for f in replay(run) if f.severity == "stop"), None)
        when = f"stops after update {stop.step} ({stop.alarm})" if stop else "never stops"
        lines.append(f"\n{run['arm']}, seed {run['seed']}: {verdict(run)}; {when}")
    return "\n".join(lines)


def values_table(runs: Sequence[Run]) -> str:
    """Markdown: the furthest that each signal went in each run, worst side."""
    heads = [f"{run['arm']}-{run['seed']} ({verdict(run)})" for run in runs]
    lines = [f"| signal | {' | '.join(heads)} |", "| --- |" + " --- |" * len(runs)]
    columns = [furthest(run) for run in runs]
    for name in ALARMS:
        cells = [json.dumps(values.get(name)) for values in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def furthest(run: Run) -> dict[str, float]:
    """The worst value of each signal over the run."""
    worst: dict[str, float] = {}
    updates, probes = run["updates"], run["probes"]
    seen = [signals_of("probes", probes[:1], probes[1 : i + 1]) for i in range(1, len(probes))]
    for i in range(WINDOW_LINES, len(updates) + 1):
        window = updates[i - WINDOW_LINES : i]
        seen.append(signals_of("updates", updates[:BASELINE_LINES], window))
    for signals in seen:
        for name, value in signals.items():
            if value is not None:
                pick = max if ALARMS[name].worse == "higher" else min
                worst[name] = round(pick(worst.get(name, value), value), 3)
    return worst


if __name__ == "__main__":
    main()
