"""A run folder as a trainer would write it, line by line, and stand-ins for tracker libraries."""

import json
from pathlib import Path
from typing import Any

from remote_trainer.run_dir import RunDir, append_jsonl, write_json, write_jsonl

CONFIG = {"training": {"seed": 1, "trl": {"hub_token": "hf_secret"}}, "reward": [{"type": "chrf"}]}


def line(step: int) -> dict[str, Any]:
    """Numbers that tell their step, a null, an inner object, and texts."""
    probe = {"accuracy": 0.25} if step == 2 else None
    return {"step": step, "reward": step / 10, "kl": None, "probe": probe, "guard": ["kl: high"]}


def write_step(run: RunDir, step: int) -> None:
    """What a run writes for one update: the completions first."""
    rows = [
        {
            "step": step,
            "prompt": [{"role": "user", "content": f"question {step}"}],
            "completion": f"answer {i}",
            "answer": ["4", "four"] if i else None,
            "reward": None if i == 3 else i / 4,
        }
        for i in range(4)
    ]
    write_jsonl(run.completions_file(step), rows)
    append_jsonl(run.metrics, line(step))


def write_alarms(run: RunDir, *severities: str) -> None:
    """guard.json with one finding per severity."""
    found = [
        {"step": 2, "alarm": "kl", "severity": severity, "value": 3.5, "level": 3.0}
        for severity in severities
    ]
    write_json(run.guard, {"findings": found})


STAND_IN = """
import json, os, sys, time

class AlertLevel:
    WARN, ERROR = "warn", "error"

class Table:
    def __init__(self, columns, data):
        self.rows = [columns, *data]

class Run:
    def _write(self, *event):
        with open(os.environ["STAND_IN_LOG"], "a") as log:
            log.write(json.dumps(event, default=lambda table: table.rows) + "\\n")

    def log(self, numbers, step):
        trouble("log")
        self._write("log", step, numbers)

    def alert(self, title, text, level):
        self._write("alert", title, text, level)

    def finish(self):
        trouble("finish")
        self._write("finish")

def trouble(where):
    kind, _, place = os.environ.get("STAND_IN_TROUBLE", "").partition("@")
    if place == where and kind == "raise":
        raise RuntimeError("no connection")
    if place == where and kind == "exit":
        os._exit(9)
    if place == where and kind == "hang":
        time.sleep(600)

def init(project, **settings):
    trouble("init")
    run = Run()
    run._write("init", project, settings)
    return run
"""
"""A library with trackio's names that writes what it gets, and fails as it is told."""


def stand_in_for_trackio(folder: Path) -> Path:
    """A folder to be searched for modules."""
    (folder / "trackio.py").write_text(STAND_IN)
    return folder


def events(log: Path) -> list[list[Any]]:
    """What the stand-in got."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
