"""The live view of a training run on a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from remote_trainer.cli.texts import number, percent, time_left
from remote_trainer.guard import ALARMS
from remote_trainer.run_dir import RunDir, read_jsonl

if TYPE_CHECKING:
    from rich.console import RenderableType

SPARKS = "▁▂▃▄▅▆▇█"
SPARK_UPDATES = 24
SAMPLE_LINES = 4
_LIGHTS = {None: ("●", "green"), "warn": ("!", "yellow"), "stop": ("x", "red")}
"""Severity -> light. The characters differ, for terminals without colours."""


class TrainingView:
    """What has been reported so far, drawn by rich in the width of the terminal."""

    def __init__(self, folder: RunDir) -> None:
        self._folder = folder
        self._count = (0, 0)
        self._line: Mapping[str, Any] = {}
        self._left = ""
        self._rewards: list[float] = []
        self._severities: dict[str, str] = {}
        self._sample: tuple[str, str] | None = None

    def count(self, done: int, total: int) -> None:
        """A long count moved on."""
        self._count = (done, total)
        self._left = ""

    def update(self, line: Mapping[str, Any], updates: int) -> None:
        """A line of metrics.jsonl was written."""
        self._line, self._left = line, time_left(dict(line), updates)
        self._count = (line["step"], updates)
        if line.get("reward") is not None:
            self._rewards.append(line["reward"])
        for finding in line.get("guard") or ():
            name, severity = severity_of(finding)
            if self._severities.get(name) != "stop":
                self._severities[name] = severity
        self._sample = _sample(self._folder, line["step"]) or self._sample

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table

        parts: list[RenderableType] = [self._bar()] if self._count[1] else []
        if self._line:
            facts = Table.grid(padding=(0, 2), expand=True)
            facts.add_column(no_wrap=True)
            facts.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
            for name, value in self._facts():
                facts.add_row(name, value)
            parts += [facts, *self._completion()]
        return Group(*parts)

    def _bar(self) -> "RenderableType":
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        done, total = self._count
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        text = f"{done}/{total}" + (f"  {self._left}" if self._left else "")
        bar.add_row(ProgressBar(total=total, completed=done), text)
        return bar

    def _facts(self) -> "list[tuple[str, RenderableType]]":
        line = self._line
        curve = sparkline(self._rewards[-SPARK_UPDATES:])
        length = number(line.get("completion_tokens_mean"))
        return [
            ("reward", f"{number(line.get('reward'))}  {curve}"),
            ("KL", f"{number(line.get('kl'))} nats per token"),
            ("length", f"{length} tokens, {percent(line.get('clipped_share'))} truncated"),
            ("guard", self._lights()),
        ]

    def _lights(self) -> "RenderableType":
        """One light per alarm, and the names of those that are not green."""
        from rich.text import Text

        lights = Text()
        for name in ALARMS:
            character, colour = _LIGHTS[self._severities.get(name)]
            lights.append(character, style=colour)
        raised = ", ".join(f"{name} ({each})" for name, each in self._severities.items())
        return lights.append(f"  {raised}" if raised else "")

    def _completion(self) -> "list[RenderableType]":
        from rich.text import Text

        if self._sample is None:
            return []
        prompt, completion = self._sample
        return [
            Text(f"> {prompt}", style="dim", no_wrap=True, overflow="ellipsis"),
            _Cut(completion),
        ]


class _Cut:
    """Text of at most `SAMPLE_LINES` lines."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.text import Text

        yield from Text(self._text).wrap(console, options.max_width)[:SAMPLE_LINES]


def sparkline(values: list[float]) -> str:
    """One character per value, from the lowest to the highest of them."""
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    if high == low:
        return SPARKS[0] * len(values)
    top = len(SPARKS) - 1
    return "".join(SPARKS[round((value - low) / (high - low) * top)] for value in values)


def severity_of(finding: str) -> tuple[str, str]:
    """(alarm, severity) of a finding of the guard, as metrics.jsonl has it."""
    return finding.partition(":")[0], "stop" if "(stop level " in finding else "warn"


def printable(text: str) -> str:
    """``text`` on one line; a model's output must not control the terminal."""
    return "".join(each if each.isprintable() else " " for each in " ".join(text.split()))


def _sample(folder: RunDir, step: int) -> tuple[str, str] | None:
    """Prompt and completion of the first row of an update; None if none were saved."""
    rows = read_jsonl(folder.completions_file(step))
    if not rows:
        return None
    prompt = rows[0]["prompt"]
    text = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", ""))
    return printable(text), printable(rows[0]["completion"]) or "(empty)"
