"""heartbeat.json: what a run does, for programs that look from outside and for the next start."""

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from remote_trainer.activity import ACTIVITY
from remote_trainer.json_files import read_object
from remote_trainer.models.hardware import memory_in_use
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.run_dir import RunDir, write_json

logger = logging.getLogger(__name__)

HEARTBEAT_KEYS: Mapping[str, str] = {
    "pid": "process that writes the run",
    "time": "when this was written",
    "phase": "what it was doing",
    "phase_seconds": "for how long",
    "update": "update under way or done last; 0 before the first",
    "memory_used": "bytes in use in its container, or on the machine; null if not known",
    "memory_limit": "bytes that the container or the machine has; null if not known",
    "clean_end": "false while it runs, and if it was killed; true if it ended by itself",
    "error": "the error that it ended with; null if there was none",
}
"""Key of heartbeat.json -> meaning."""

_TOLD = {"pid", "phase", "update", "memory_used", "memory_limit", "clean_end"}
"""What `why_killed` needs."""

BEAT_S, LONGEST_PAUSE_S = 2.0, 10.0
HANGS_AFTER_S, HANGS_AFTER_MEDIANS = 600.0, 20
NEARLY_FULL = 0.9


class Heartbeat:
    """Used as a context around a run. A thread writes heartbeat.json when the phase has changed,
    at most every 2 s and at least every 10 s, and tells when an update hangs.

    Where the file cannot be written, the run goes on without.
    """

    def __init__(self, folder: RunDir) -> None:
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self._written: tuple[float, str, int] = (0.0, "", -1)
        self._told = 0  # update of which it was said that it hangs

    def __enter__(self) -> Self:
        if killed := why_killed(read_heartbeat(self._folder)):
            logger.warning("%s", killed)
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        ACTIVITY.end_update()
        if phase := ACTIVITY.failed_in(error):
            ACTIVITY.enter(phase)
        text = None if kind is None else f"{kind.__name__}: {error}"
        self._write(clean_end=True, error=text)

    def _watch(self) -> None:
        while not self._ended.wait(BEAT_S):
            at, *before = self._written
            changed = before != [ACTIVITY.phase, ACTIVITY.update]
            if changed or time.monotonic() - at >= LONGEST_PAUSE_S:
                self._write()
            self._look_for_hang()

    def _write(self, clean_end: bool = False, error: str | None = None) -> None:
        used, limit = memory_in_use() or (None, None)
        now = time.monotonic()
        self._written = (now, ACTIVITY.phase, ACTIVITY.update)
        content = {
            "pid": os.getpid(),
            "time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "phase": ACTIVITY.phase,
            "phase_seconds": round(now - ACTIVITY.since, 1),
            "update": ACTIVITY.update,
            "memory_used": used,
            "memory_limit": limit,
            "clean_end": clean_end,
            "error": error,
        }
        with suppress(OSError):  # a full disk is for those to report that need it
            if self._folder.root.is_dir():  # a run folder that is gone does not come back as this
                write_json(self._folder.heartbeat, content)

    def _look_for_hang(self) -> None:
        since, update = ACTIVITY.update_since, ACTIVITY.update
        limit = max(HANGS_AFTER_S, HANGS_AFTER_MEDIANS * ACTIVITY.median_seconds)
        if since is None or update == self._told or time.monotonic() - since <= limit:
            return
        self._told = update
        logger.warning(
            "update %d has been running for %.0f minutes, the last %.0f of them in: %s; the stacks "
            "of all threads are in %s",
            update,
            (time.monotonic() - since) / 60,
            (time.monotonic() - ACTIVITY.since) / 60,
            ACTIVITY.phase,
            self._folder.stacks,
        )
        with suppress(OSError):
            self._folder.stacks.unlink(missing_ok=True)
            with self._folder.stacks.open("x", encoding="utf-8") as file:
                file.write(f"update {update}, in: {ACTIVITY.phase}\n")
                file.flush()
                faulthandler.dump_traceback(file)


def noting_phases(watch: ProgressCallbacks) -> ProgressCallbacks:
    """The same callbacks; the name of each stage is also the phase of this process."""

    def stage(text: str) -> None:
        ACTIVITY.enter(text)
        watch.stage(text)

    return replace(watch, stage=stage)


def why_killed(last: Mapping[str, Any] | None) -> str | None:
    """What to say if the kernel probably killed the process of this heartbeat for its memory."""
    if last is None or last["clean_end"] or not last["memory_limit"]:
        return None
    used, limit = last["memory_used"], last["memory_limit"]
    if used < NEARLY_FULL * limit:
        return None
    return (
        f"the last process of this run (pid {last['pid']}) was killed in: {last['phase']}, update "
        f"{last['update']}, with {used / 1e9:.1f} of {limit / 1e9:.1f} GB of memory in use: "
        "probably for lack of memory. If it happens again, lower training.max_completion_length, "
        "training.num_generations or scoring.max_tokens_per_batch, with --allow-changed"
    )


def read_heartbeat(folder: RunDir) -> dict[str, Any] | None:
    """Content of heartbeat.json; None where there is none that can be read."""
    try:
        found = read_object(folder.heartbeat)
    except (OSError, ValueError):
        return None
    sizes = (found.get("memory_used"), found.get("memory_limit"))
    known = all(isinstance(size, int | float) and 0 <= size < 2**60 for size in sizes)
    complete = set(found) >= _TOLD
    return found if complete and (known or sizes == (None, None)) else None
