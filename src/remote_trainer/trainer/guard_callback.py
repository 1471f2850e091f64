"""Passes probes and metrics to the guard, keeps adapter copies, and stops the run."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from remote_trainer.activity import ACTIVITY
from remote_trainer.config import RunConfig
from remote_trainer.evaluation.probe import Probe
from remote_trainer.faults import fault_point
from remote_trainer.guard import Finding, Guard
from remote_trainer.guard.guard import explain
from remote_trainer.run_dir import RunDir, write_json
from remote_trainer.trainer.kept_adapters import KeptAdapters

logger = logging.getLogger(__name__)

SAFE, BEST = "safe", "best"
EARLY_UPDATES = 20
WATCHED_INTERVAL = 5


class GuardCallback(TrainerCallback):  # type: ignore[misc]
    """Probes the model and passes every logged line to the guard.

    Collapse is likely in the first 20 updates and after a warning: there the model is probed every
    5 updates, unless the config sets an interval.

    It keeps two copies of the adapter: ``safe`` from the newest probe with at least as many right
    answers as the first probe and no warning since the previous one, and ``best`` from the probe
    with the most right answers.
    """

    def __init__(self, config: RunConfig, folder: RunDir, probe: Probe | None, model: Any) -> None:
        self._action = config.guard.action
        self._keep_best = config.training.keep == "best"
        self._every = config.evaluation.every_steps or config.training.save_steps
        self._watched_every = config.evaluation.every_steps or min(
            WATCHED_INTERVAL, config.training.save_steps
        )
        self._folder = folder
        self._probe = probe
        self._kept = KeptAdapters(model)
        self._warned_at = -1
        self._step = 0
        self._probe_due = False
        self._newest: Mapping[str, Any] | None = None
        self._seconds = 0.0
        self._logged_count = 0  # logged messages about the state before training
        self.guard = Guard(config.guard.active_levels())

    @property
    def stopped(self) -> bool:
        """Whether an alarm reached its stop level and ``guard.action`` is ``stop``."""
        return self._action == "stop" and self.guard.stop is not None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.guard.probes:
            self._run_probe(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._is_due(state.global_step) or state.global_step >= state.max_steps:
            if control.should_log:
                self._probe_due = True  # after the logged line, whose findings may forbid a copy
            else:
                self._run_probe(state.global_step)
                self._end_if_stopped(control)

    def _is_due(self, step: int) -> bool:
        """Whether to probe after this update."""
        watched = step <= EARLY_UPDATES or self._warned_at >= self._probed_at
        return step % self._every == 0 or (watched and step % self._watched_every == 0)

    @property
    def _probed_at(self) -> int:
        return self.guard.probes[-1]["step"] if self.guard.probes else -1

    def see_line(self, line: dict[str, Any], control: Any) -> None:
        """Judge a line of metrics.jsonl before it is written; adds probe and findings to it."""
        self._step = line["step"]
        found = self.guard.see_update(line)
        self._record(found)
        if found:
            self._write()  # a tracker reads it
        if self._probe_due:
            self._run_probe(line["step"])
        line["probe"], self._newest = self._newest, None
        line["seconds_probe"], self._seconds = self._seconds, 0.0
        line["guard"] = [str(f) for f in self.guard.findings if f.step == line["step"]]
        self._end_if_stopped(control)

    def _run_probe(self, step: int) -> None:
        """Probe the model, judge the probe, and copy the adapter if it qualifies."""
        if self._probe is None:
            return
        started = time.perf_counter()
        self._step, self._probe_due = step, False
        before = self._probed_at
        with ACTIVITY.during("probe of the guard"):
            fault_point("probe")
            measured = self._probe.measure()
        self._record(self.guard.see_probe(step, measured))
        newest = self.guard.probes[-1]
        self._newest = {key: value for key, value in newest.items() if key != "per_row"}
        # A small drop does not stop a run, but the adapter restored by a stop must have none.
        if self._warned_at <= before and _keeps_accuracy(newest, self.guard.probes[0]):
            self._kept.keep(SAFE, step)
        if self._keep_best and max(self.guard.probes, key=_rank) is newest:
            self._kept.keep(BEST, step)
        self._write()
        self._seconds += time.perf_counter() - started

    def _record(self, found: Sequence[Finding]) -> None:
        earlier = self.guard.findings[: len(self.guard.findings) - len(found)]
        known = {(finding.alarm, finding.severity) for finding in earlier}
        for finding in found:
            self._warned_at = finding.step
            if (finding.alarm, finding.severity) not in known:
                logger.warning("guard, update %d: %s", finding.step, finding)
        for message in self.guard.before_training[self._logged_count :]:
            logger.warning("guard, %s", message)
            self._logged_count += 1

    def _end_if_stopped(self, control: Any) -> None:
        if self.stopped:
            control.should_training_stop = True
            control.should_save = True

    def finish(self) -> None:
        """After training: load the resulting adapter into the model and write guard.json."""
        chosen = self._result()
        if chosen is not None:
            fault_point("rollback")
            self._kept.restore(chosen)
        self._write()

    def _result(self) -> str | None:
        """The copy to use as result; None: the adapter after the last update."""
        if self.stopped:
            return SAFE
        return BEST if self._keep_best else None

    def _write(self) -> None:
        """Write guard.json."""
        chosen = self._result()
        result_step = self._kept.steps.get(chosen or "", self._step)
        before, found = self.guard.before_training, self.guard.findings
        text = explain(found, result_step, self._step, before) if self.stopped else None
        write_json(
            self._folder.guard,
            {
                "action": self._action,
                "stopped": self.stopped,
                "step": self._step,
                "result_step": result_step,
                "text": text,
                "findings": [asdict(finding) for finding in found],
                "before_training": before,
                "probe_rows": self._probe.sources if self._probe else [],
                "probes": self.guard.probes,
                "levels": {name: asdict(level) for name, level in self.guard.levels.items()},
            },
        )

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the adapter copies into a checkpoint; returns the rest of the state for JSON."""
        self._kept.save(folder)
        return {
            "guard": self.guard.state(),
            "kept": self._kept.steps,
            "warned_at": self._warned_at,
            "step": self._step,
        }

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Inverse of `save`."""
        self.guard.restore(state["guard"])
        self._kept.load(folder, state["kept"])
        self._warned_at, self._step = state["warned_at"], state["step"]
        self._logged_count = len(self.guard.before_training)


def _keeps_accuracy(probe: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Whether accuracy is at least that of the first probe; True without references."""
    return probe.get("accuracy") is None or bool(probe["accuracy"] >= first["accuracy"])


def _rank(probe: Mapping[str, Any]) -> tuple[float, float]:
    """Accuracy, then answer likelihood; among equals the earlier probe wins. `check` requires
    rows with references for ``keep: best``."""
    return probe["accuracy"], probe["answer_likelihood"]
