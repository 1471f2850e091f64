"""Weights & Biases: offline unless the user sets WANDB_MODE; ``wandb sync`` uploads later.

Its own variables (WANDB_PROJECT, WANDB_ENTITY, ...) hold.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from remote_trainer.trackers.tracker import COLUMNS, PROJECT, TableRow, TrackedRun


class WandbTracker:
    """A run of wandb; a `remote_trainer.trackers.tracker.Tracker`."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, numbers: Mapping[str, float], completions: Sequence[TableRow]) -> None:
        import wandb

        logged: dict[str, Any] = dict(numbers)
        if completions:
            rows = [list(row) for row in completions]
            # A column of answers may hold text in one row and nothing in the next.
            logged["completions"] = wandb.Table(list(COLUMNS), rows, allow_mixed_types=True)
        self._run.log(logged, step=step)

    def alert(self, step: int, title: str, text: str, stops: bool) -> None:
        import wandb

        level = wandb.AlertLevel.ERROR if stops else wandb.AlertLevel.WARN
        self._run.alert(title, f"update {step}: {text}", level=level)

    def finish(self) -> None:
        self._run.finish()


def open_tracker(run: TrackedRun) -> WandbTracker:
    """Start the run of this id, or continue it."""
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    started = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=run.id,
        name=run.name,
        dir=run.folder,
        config=dict(run.config),
        mode=mode,
        # An offline run cannot be continued; the parts have the same id and join when uploaded.
        resume=None if mode == "offline" else "allow",
        # The metrics only: no terminal output, host, program, git state, code or load of the
        # machine.
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        ),
    )
    return WandbTracker(started)
