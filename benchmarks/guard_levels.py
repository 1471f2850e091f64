"""How the guard's levels do on recorded runs: false alarms, misses, and when it would stop.

    python benchmarks/guard_levels.py            # the table for docs/guard.md
    python benchmarks/guard_levels.py --values   # furthest value of every signal in every run

A recorded run is judged by its checkpoints on the rows held out of training, not by the guard: it
is bad if at any checkpoint the share of right greedy answers is over 10 points below the start, and
good if it never is below by more than 3 points and right sampled answers became more.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from learning import results

from remote_trainer.guard import ALARMS, Finding, Guard
from remote_trainer.guard.signals import WINDOW_LINES, probe_signals, update_signals

Run = dict[str, Any]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", action="store_true")
    runs = [run for run in results() if run["probes"]]
    print(values_table(runs) if parser.parse_args().values else levels_table(runs))


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


def levels_table(runs: Sequence[Run]) -> str:
    """Markdown: of each alarm, how many good runs it disturbs and how many bad ones it misses."""
    found = [(verdict(run), replay(run)) for run in runs]
    good = [findings for kind, findings in found if kind == "good"]
    bad = [findings for kind, findings in found if kind == "bad"]
    lines = ["| alarm | warn | stop | good runs warned / stopped | bad runs warned / stopped |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for name, alarm in ALARMS.items():
        levels = f"{alarm.levels.warn} | {alarm.levels.stop}"
        lines.append(f"| {name} | {levels} | {_rung(good, name)} | {_rung(bad, name)} |")
    lines.append(f"| all of them | | | {_rung(good)} | {_rung(bad)} |")
    for run, (kind, findings) in zip(runs, found, strict=True):
        stop = next((f for f in findings if f.severity == "stop"), None)
        when = f"stops after update {stop.step} ({stop.alarm})" if stop else "never stops"
        lines.append(f"\n{run['arm']}, seed {run['seed']}: {kind}; {when}")
    return "\n".join(lines)


def _rung(runs: Sequence[Sequence[Finding]], name: str | None = None) -> str:
    mine = [[f for f in findings if name in (None, f.alarm)] for findings in runs]
    stopped = sum(any(f.severity == "stop" for f in findings) for findings in mine)
    return f"{sum(map(bool, mine))} / {stopped} of {len(runs)}"


def values_table(runs: Sequence[Run]) -> str:
    """Markdown: the furthest that each signal went in each run, worst side."""
    columns = [f"{run['arm']}-{run['seed']} ({verdict(run)})" for run in runs]
    lines = [f"| signal | {' | '.join(columns)} |", "| --- |" + " --- |" * len(runs)]
    furthest = [signals_of(run) for run in runs]
    for name in ALARMS:
        cells = [json.dumps(values.get(name)) for values in furthest]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def signals_of(run: Run) -> dict[str, float]:
    """The worst value of each signal over the run."""
    worst: dict[str, float] = {}
    updates, probes = run["updates"], run["probes"]
    seen = [probe_signals(probes[: i + 1]) for i in range(1, len(probes))]
    for i in range(WINDOW_LINES, len(updates) + 1):
        seen.append(update_signals(updates[:WINDOW_LINES], updates[i - WINDOW_LINES : i]))
    for signals in seen:
        for name, value in signals.items():
            if value is not None:
                pick = max if ALARMS[name].worse == "higher" else min
                worst[name] = round(pick(worst.get(name, value), value), 3)
    return worst


if __name__ == "__main__":
    main()
