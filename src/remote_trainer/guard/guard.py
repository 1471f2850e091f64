"""Watches a run line by line, remembers what it saw, and says when to warn and when to stop."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from remote_trainer.guard.alarms import ALARMS, Levels, Severity, signals_of
from remote_trainer.guard.signals import BASELINE_LINES, WINDOW_LINES, Line, Lines, Source

GUARD_KEYS: Mapping[str, str] = {
    "action": "`guard.action` of the config",
    "stopped": "whether the guard stopped the run",
    "step": "the last update that it saw",
    "result_step": "the update whose adapter is the result",
    "text": "why it stopped, in plain words; null if it did not",
    "findings": "each alarm that reached a level: step, alarm, severity, value, level",
    "before_training": "what was beyond a level before the first update",
    "probe_rows": "`file:line` of the held-out rows of the probe",
    "probes": "what each probe measured",
    "levels": "the levels in use",
}
"""Key of guard.json -> meaning."""


@dataclass(frozen=True)
class Finding:
    """One alarm that went off."""

    step: int
    alarm: str
    severity: Severity
    value: float
    level: float

    @property
    def seen(self) -> str:
        """What was seen, as half a sentence."""
        return ALARMS[self.alarm].seen.format(value=self.value)

    def __str__(self) -> str:
        return f"{self.alarm}: {self.seen} ({self.severity} level {self.level:g})"


class Guard:
    """Takes numbers and returns findings; what follows from them is left to the trainer.

    The same lines and probes in the same order give the same findings, so recorded runs can be
    judged again with other levels.
    """

    def __init__(self, levels: Mapping[str, Levels] | None = None) -> None:
        self.levels = {name: alarm.levels for name, alarm in ALARMS.items()} | dict(levels or {})
        self.findings: list[Finding] = []
        self.probes: list[dict[str, Any]] = []
        self._baseline: list[dict[str, Any]] = []
        self._window: list[dict[str, Any]] = []
        self._rewards: list[float] = []

    @property
    def stop(self) -> Finding | None:
        """The first finding that is bad enough to stop."""
        return next((f for f in self.findings if f.severity == "stop"), None)

    @property
    def before_training(self) -> list[str]:
        """What was beyond a level at the start: a sentence each, with its own remedy. The list
        only grows at its end."""
        complete = len(self._baseline) == BASELINE_LINES
        starts = {"probes": self.probes[:1], "updates": self._baseline if complete else []}
        return [
            alarm.at_start.format(value=value)
            for source, first in starts.items()
            for name, alarm in ALARMS.items()
            if alarm.at_start and alarm.signal.of == source
            if alarm.severity(value := alarm.signal.at_start(first), self.levels[name])
        ]

    def see_update(self, line: Line) -> list[Finding]:
        """Judge a line of metrics.jsonl; returns the findings it adds."""
        kept = {key: value for key, value in line.items() if isinstance(value, int | float)}
        if len(self._baseline) < BASELINE_LINES:
            self._baseline.append(kept)
        self._window = [*self._window, kept][-WINDOW_LINES:]
        if line.get("reward") is not None:
            self._rewards.append(line["reward"])
        if len(self._window) < WINDOW_LINES:
            return []
        return self._judge(int(line["step"]), "updates", self._baseline, self._window)

    def see_probe(self, step: int, measured: Mapping[str, Any]) -> list[Finding]:
        """Judge a probe taken after ``step`` updates; the first one is the start."""
        reward = fmean(self._rewards) if self._rewards else None
        self._rewards = []
        self.probes.append({"step": step, **measured, "reward": reward})
        first, later = self.probes[:1], self.probes[1:]
        return self._judge(step, "probes", first, later) if later else []

    def _judge(self, step: int, source: Source, first: Lines, latest: Lines) -> list[Finding]:
        found = []
        early = len(self._baseline) < BASELINE_LINES  # too early to tell harm from noise
        for name, value in signals_of(source, first, latest).items():
            reached = ALARMS[name].severity(value, self.levels[name])
            if reached is not None and value is not None:
                level: float = getattr(self.levels[name], reached)
                found.append(Finding(step, name, "warn" if early else reached, value, level))
        self.findings += found
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "findings": [asdict(finding) for finding in self.findings],
            "probes": self.probes,
            "baseline": self._baseline,
            "window": self._window,
            "rewards": self._rewards,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.findings = [Finding(**finding) for finding in state["findings"]]
        self.probes = list(state["probes"])
        self._baseline, self._window = list(state["baseline"]), list(state["window"])
        self._rewards = list(state["rewards"])


def explain(
    findings: Sequence[Finding], kept_step: int, step: int, before: Sequence[str] = ()
) -> str:
    """One paragraph for people: what was seen, since when, what the result is, what to change, and
    what was wrong ``before`` training."""
    stops = [f for f in findings if f.severity == "stop"]
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.alarm, finding)
    seen = "; ".join(f"{f.seen} (first warning after update {first[f.alarm].step})" for f in stops)
    advice = " ".join(dict.fromkeys(s for f in stops for s in ALARMS[f.alarm].advice))
    model = f"of update {kept_step}" if kept_step else "as it was before training"
    at_start = f" Not caused by training: {' '.join(before)}" if before else ""
    return (
        f"Stopped after update {step}: {seen}. The result is the adapter {model}, from before "
        f"the first warning. {advice}{at_start}"
    )
