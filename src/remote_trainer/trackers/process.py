"""Starts the process of a tracker beside a run, and looks after it; the run never waits for it."""

import json
import logging
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import RunDir
from remote_trainer.trackers.tracker import NONE

logger = logging.getLogger(__name__)

FINISH_S = 20.0
"""Longest time after the run for writing what is pending."""
_END = 4000
"""Bytes of its log that are looked at for the reason of an error."""


class TrackerProcess:
    """Used as a context around a run; does nothing for the tracker ``none``.

    If the tracker fails or hangs, there is one warning, and the run goes on.
    """

    def __init__(self, name: str, run: RunDir, config: Mapping[str, Any], every: int) -> None:
        """``every``: updates between tables of completions."""
        self._name = name
        self._task = {"tracker": name, "run": str(run), "config": config, "every": every}
        self._log = run.tracking / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if self._name == NONE:
            return self
        # -P: the working directory, with whatever folders it has, is not searched for modules.
        command = [sys.executable, "-P", "-m", "remote_trainer.trackers.follow"]
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    bufsize=0,  # nothing is left to write when the pipe is closed
                    start_new_session=True,  # Ctrl-C is for the run
                )
            assert self._process.stdin is not None, "a pipe was asked for"
            self._process.stdin.write(json.dumps(self._task).encode() + b"\n")
        except OSError as error:  # no memory for a process, a full disk, or it ended at once
            self._give_up(f"could not be started ({error})")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=FINISH_S)
        except subprocess.TimeoutExpired:
            self._give_up(f"did not finish within {FINISH_S:.0f} s")
        self.look()

    def look(self) -> None:
        """Warn if the tracker has failed."""
        if self._process is not None and self._process.poll():
            self._give_up(f"failed ({_last_line(self._log)})")

    def watching(self, watch: ProgressCallbacks) -> ProgressCallbacks:
        """The same callbacks; after each line of metrics.jsonl, looks after the tracker."""

        def line(written: dict[str, Any], updates: int) -> None:
            watch.line(written, updates)
            self.look()

        return replace(watch, line=line)

    def _give_up(self, why: str) -> None:
        logger.warning(
            "tracking.report_to: %s %s; the run goes on without it, and metrics.jsonl has "
            "everything. Its output is in %s",
            self._name,
            why,
            self._log,
        )
        if self._process is not None:
            self._process.kill()
            self._process.communicate()  # closes the pipe
            self._process = None


def _last_line(log: Any) -> str:
    """The error at the end of a traceback."""
    try:
        lines = log.read_bytes()[-_END:].decode(errors="replace").strip().splitlines()
    except OSError:
        return "no output"
    return lines[-1] if lines else "no output"
