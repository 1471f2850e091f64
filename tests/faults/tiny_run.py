"""A short run on the tiny model, and what must be equal when it was disturbed and went on."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from forked import Command, start

from remote_trainer.run_dir import RunDir, read_jsonl

TOLERANCE = 1e-4
"""Of metrics, relative: passes of other sizes round differently."""
TIMES = re.compile(r"seconds|tokens_per_second|memory")


@dataclass
class TinyRun:
    """A config of a run in ``root``, and the environment of its commands."""

    root: Path
    model: Path
    cache: Path
    """Holds answers before training and the data, whose paths are noted in guard.json."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of `training`."""
    formats: tuple[str, ...] = ("lora",)
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further sections."""
    environment: Mapping[str, str] = field(default_factory=dict)
    patches: Mapping[str, object] = field(default_factory=dict)
    """See `forked.start`."""
    output: Path | None = None
    """Where the output goes, if not to ``root``."""

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.folder = RunDir(self.root / "run")
        self.config = self.root / "c.yaml"
        rows = [{"prompt": f"What is {i} + {i}?", "answer": f"{2 * i}"} for i in range(12)]
        for name, part in (("train", rows[:8]), ("eval", rows[8:])):
            text = "".join(json.dumps(row) + "\n" for row in part)
            (self.cache / f"{name}.jsonl").write_text(text)
        self.config.write_text(json.dumps(self._settings()))

    def _settings(self) -> dict[str, Any]:
        return {
            "model": {"name": str(self.model), "max_seq_length": 256},
            "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
            "data": {name: str(self.cache / f"{name}.jsonl") for name in ("train", "eval")},
            "reward": {"type": "inverse_loss", "truncated": "score"},
            # Two prompts an update and eight rows: an epoch ends after the fourth update.
            "training": {
                "learning_rate": 1e-2, "num_generations": 4, "gradient_accumulation_steps": 2,
                "max_prompt_length": 64, "max_completion_length": 6, "max_steps": 6,
                "save_steps": 2, "group_filter": {"min_std": 0}, "keep": "best", **self.changes,
            },
            "evaluation": {"samples": 2},
            "export": {"formats": list(self.formats)},
            "output_dir": str(self.folder.root),
            **self.more,
        }  # fmt: skip

    @property
    def updates(self) -> int:
        """Of the whole run."""
        return int(self._settings()["training"]["max_steps"])

    def start(self, fault: str = "") -> Command:
        """Begin to train, with a fault."""
        told = {"RT_FAULT": fault, "REMOTE_TRAINER_CACHE": str(self.cache), "HF_HUB_OFFLINE": "1"}
        return start(
            "train", self.config,
            output=(self.output or self.root) / "output.txt",
            environment={**told, **self.environment}, patches=self.patches,
        )  # fmt: skip

    def train(self, fault: str = "") -> tuple[int, str]:
        """(exit code, output) of one command."""
        command = self.start(fault)
        return command.wait(), command.text

    def numbers(self) -> dict[str, Any]:
        """Everything that a run leaves, without times and memory."""
        lines = read_jsonl(self.folder.metrics)
        *_, last = self.folder.complete_checkpoints()
        return {
            "steps": [line["step"] for line in lines],
            "metrics": [_without_times(line) for line in lines],
            "completions": {
                file.name: read_jsonl(file) for file in sorted(self.folder.completions.iterdir())
            },
            "guard": _without_times(json.loads(self.folder.guard.read_text())),
            "eval": _without_times(json.loads(self.folder.eval.read_text())),
            "adapter": _sha256(self.folder.adapter / "adapter_model.safetensors"),
            "trained": _sha256(last / "adapter.safetensors"),  # `adapter` may be an earlier one
        }


New = Callable[..., TinyRun]
"""Makes a run in a folder; keywords are fields of `TinyRun`."""


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if not TIMES.search(key)}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def undisturbed(run: TinyRun) -> dict[str, Any]:
    code, text = run.train("raise@proof")
    assert code == 1, text
    numbers = run.numbers()
    assert numbers["steps"] == list(range(1, run.updates + 1))
    return numbers


def go_on(run: TinyRun, whole: dict[str, Any]) -> None:
    """The same command again, up to the verification of the adapter, which takes long."""
    code, text = run.train("raise@proof")
    assert code == 1, text
    assert "RT_FAULT at proof" in text
    numbers = run.numbers()
    for part, value in whole.items():
        assert numbers[part] == value, part
    assert not list(run.folder.root.rglob("*.partial"))


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same numbers, but for rounding."""
    assert found["steps"] == expected["steps"]
    for mine, theirs in zip(found["metrics"], expected["metrics"], strict=True):
        numbers = {key: value for key, value in theirs.items() if isinstance(value, float)}
        assert {key: mine[key] for key in numbers} == pytest.approx(
            numbers, rel=TOLERANCE, abs=1e-5
        )
