"""How near each alarm of the guard came to its warn level, replayed from what a run logged."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from remote_trainer.guard.alarms import ALARMS, Alarm, signals_of
from remote_trainer.guard.signals import BASELINE_LINES, WINDOW_LINES

SHOWN = 5
"""Alarms in the chart: those that came nearest."""

MOST_JUDGED = 500
"""Of the updates of a run, evenly spaced."""

Signals = tuple[int, Mapping[str, float | None]]
"""Update, and alarm -> value of its signal."""
Nearness = tuple[str, list[int], list[float | None]]
"""Alarm, updates, and its signal relative to its warn level: 1 is the level."""


def alarm_nearness(
    updates: Sequence[Mapping[str, Any]], guard: Mapping[str, Any] | None
) -> list[Nearness]:
    """The `SHOWN` nearest alarms, nearest first; without alarms that are never near.

    Empty for a run without a guard. Before guard.json is written, only the logged updates count,
    with the levels of the program.
    """
    state = guard or {}
    if state.get("action") == "off":
        return []
    seen = [*_of_updates(updates), *_of_probes(state.get("probes") or [])]
    levels = {name: alarm.levels.warn for name, alarm in ALARMS.items()}
    levels |= {name: each["warn"] for name, each in (state.get("levels") or {}).items()}
    lines = [
        (name, [step for step, _ in points], [near for _, near in points])
        for name, alarm in ALARMS.items()
        if (points := _points(name, alarm, levels[name], seen))
    ]
    return sorted(lines, key=lambda line: -_nearest(line))[:SHOWN]


def _points(
    name: str, alarm: Alarm, level: float | None, seen: Sequence[Signals]
) -> list[tuple[int, float | None]]:
    """Updates with a known signal; none if it never left 0."""
    if not level:
        return []
    known = [(step, values[name]) for step, values in seen if values.get(name) is not None]
    near = [(step, _relative(alarm, value, level)) for step, value in known if value is not None]
    return near if any(value for _, value in near) else []


def _relative(alarm: Alarm, value: float, level: float) -> float | None:
    if alarm.worse == "higher":
        return max(0.0, value) / level
    return level / value if value > 0 else None


def _nearest(line: Nearness) -> float:
    return max(value for value in line[2] if value is not None)


def _of_updates(updates: Sequence[Mapping[str, Any]]) -> Iterator[Signals]:
    """As the guard judged them: the last lines against the first ones."""
    stride = -(-len(updates) // MOST_JUDGED)
    for end in range(WINDOW_LINES, len(updates) + 1, max(1, stride)):
        window = updates[end - WINDOW_LINES : end]
        yield window[-1]["step"], signals_of("updates", updates[:BASELINE_LINES], window)


def _of_probes(probes: Sequence[Mapping[str, Any]]) -> Iterator[Signals]:
    for end in range(2, len(probes) + 1):
        try:
            values = signals_of("probes", probes[:1], probes[1:end])
        except KeyError:  # a run of an older version, which measured less
            return
        yield probes[end - 1]["step"], values
