"""The process of a tracker: reads what a run writes and hands it on until the run ends.

python -m remote_trainer.trackers.follow, started by `remote_trainer.trackers.process`. The first
line of its input says what to do; the end of its input is the end of the run, however it ends.
"""

import json
import logging
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_trainer.run_dir import RunDir, read_jsonl, write_json
from remote_trainer.trackers.tracker import TableRow, TrackedRun, Tracker, open_tracker

LOOK_S = 0.5
SAMPLES = 8
"""Most completions in a table."""


class Progress:
    """What a tracker already has, in ``tracking/<name>.json``; survives a resume."""

    def __init__(self, path: Path) -> None:
        self._path = path
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.id: str = known.get("id") or secrets.token_hex(8)
        self.step: int = known.get("step", 0)
        self.alerts: list[list[Any]] = known.get("alerts", [])

    def save(self) -> None:
        write_json(self._path, {"id": self.id, "step": self.step, "alerts": self.alerts})


class Follower:
    """Hands each line of metrics.jsonl and each alarm of guard.json to a tracker once."""

    def __init__(self, run: RunDir, tracker: Tracker, progress: Progress, every: int) -> None:
        """Completions go along after each ``every`` updates, and after the first."""
        self._run = run
        self._tracker = tracker
        self._progress = progress
        self._every = every
        self._seen: dict[Path, tuple[int, int]] = {}

    def send_new(self) -> None:
        """Everything that was written since the last call."""
        if self._changed(self._run.metrics):
            for line in read_jsonl(self._run.metrics):
                if line["step"] > self._progress.step:
                    self._send(line)
        if self._changed(self._run.guard):
            self._send_alerts()

    def _send(self, line: Mapping[str, Any]) -> None:
        step = line["step"]
        with_samples = step == 1 or step % self._every == 0
        rows = self._completions(step) if with_samples else []
        self._tracker.log(step, dict(numbers_of(line)), rows)
        self._progress.step = step
        self._progress.save()

    def _completions(self, step: int) -> list[TableRow]:
        """Those with the highest rewards last; evenly spaced."""
        lines = read_jsonl(self._run.completions_file(step))
        ranked = sorted(lines, key=lambda each: (each["reward"] is not None, each["reward"] or 0.0))
        count = min(len(ranked), SAMPLES)
        return [table_row(ranked[i * len(ranked) // count]) for i in range(count)]

    def _send_alerts(self) -> None:
        guard = json.loads(self._run.guard.read_text(encoding="utf-8"))
        for finding in guard["findings"]:
            key = [finding["step"], finding["alarm"], finding["severity"]]
            if key in self._progress.alerts:
                continue
            text = "{severity} level {level:g}, value {value:.4g}".format(**finding)
            self._tracker.alert(key[0], key[1], text, key[2] == "stop")
            self._progress.alerts.append(key)
            self._progress.save()

    def _changed(self, path: Path) -> bool:
        """Whether a file exists and is not the one of the last call."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        now = stat.st_size, stat.st_mtime_ns
        before, self._seen[path] = self._seen.get(path), now
        return before != now


def numbers_of(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The known numbers of a line of metrics.jsonl; those of inner objects as ``outer/inner``."""
    for key, value in line.items():
        if isinstance(value, Mapping):
            yield from numbers_of(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and prefix + key != "step":
            yield prefix + key, float(value)


def table_row(line: Mapping[str, Any]) -> TableRow:
    """A line of completions/ in the columns of the table."""
    prompt, answer = line["prompt"], line["answer"]
    if not isinstance(prompt, str):
        prompt = prompt[-1]["content"]
    texts = [
        each if each is None or isinstance(each, str) else json.dumps(each, ensure_ascii=False)
        for each in (prompt, line["completion"], answer)
    ]
    return [line["step"], *texts, line["reward"]]


def without_secrets(config: Any) -> Any:
    """A config without texts under keys such as ``hub_token``."""
    if isinstance(config, Mapping):
        return {
            key: without_secrets(value)
            for key, value in config.items()
            if not (isinstance(value, str) and key.endswith(("token", "key", "secret", "password")))
        }
    if isinstance(config, Sequence) and not isinstance(config, str):
        return [without_secrets(value) for value in config]
    return config


def main() -> None:
    """Follow one run until the input ends; an error ends this process with its traceback."""
    logging.basicConfig(level=logging.WARNING)
    task = json.loads(sys.stdin.readline())
    run = RunDir(task["run"])
    progress = Progress(run.tracking / f"{task['tracker']}.json")
    progress.save()
    name = f"{run.root.resolve().name}-{progress.id[:6]}"
    config = without_secrets(task["config"])
    tracked = TrackedRun(name, progress.id, run.tracking, config, progress.step)
    tracker = open_tracker(task["tracker"], tracked)
    follower = Follower(run, tracker, progress, task["every"])
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    while not ended.wait(LOOK_S):
        follower.send_new()
    follower.send_new()
    tracker.finish()


if __name__ == "__main__":
    main()
