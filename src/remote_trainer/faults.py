"""Faults on purpose, for tests of what a run survives: ``RT_FAULT=kill@save:optimizer``.

The program passes the points below while it works. A fault that is armed for a point happens there.
"""

import errno
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from remote_trainer.errors import Problem, UserInputError

VARIABLE = "RT_FAULT"
_FORMATS = ("lora", "lora_gguf", "merged_16bit", "merged_4bit", "gguf")

POINTS: Mapping[str, str] = {
    "evaluation:before": "before held-out rows are answered before training",
    "probe": "before the guard probes the model",
    "sampling": "before the completions of an update are sampled",
    "reward": "before completions are scored",
    "scoring": "before log-probabilities are computed without gradient",
    "update": "before the forward pass of a micro-step",
    "update:gradients": "before the optimizer step",
    "update:stepped": "after the optimizer step",
    "log": "before a line of metrics.jsonl is written",
    "save:adapter": "after the adapter of a checkpoint was written",
    "save:kept": "after the guard's copies of the adapter were written",
    "save:optimizer": "after the optimizer state was written",
    "save:rng": "after the random states were written",
    "save:state": "after state.json was written",
    "save:trainer_state": "after trainer_state.json was written, before the manifest",
    "save:manifest": "after the manifest was written, before older checkpoints are deleted",
    "save:pruned": "after older checkpoints were deleted",
    "rollback": "before a kept adapter replaces the trained one",
    "evaluation:after": "before held-out rows are answered after training",
    **{f"export:{form}": f"before the export {form} is written" for form in _FORMATS},
    **{
        f"export:{form}:written": f"after {form} was written, before it gets its name"
        for form in _FORMATS
    },
    "proof": "before an export is verified",
    "report": "before the report is written",
}


class InjectedFault(Exception):
    """What the action ``raise`` raises."""


def _raise(error: BaseException) -> NoReturn:
    raise error


def _hang() -> None:
    while True:
        time.sleep(1)


ACTIONS: Mapping[str, tuple[str, Callable[[str], None]]] = {
    "kill": ("SIGKILL to this process", lambda point: os.kill(os.getpid(), signal.SIGKILL)),
    "term": ("SIGTERM to this process", lambda point: os.kill(os.getpid(), signal.SIGTERM)),
    "int": ("SIGINT (Ctrl-C) to this process", lambda point: os.kill(os.getpid(), signal.SIGINT)),
    "raise": ("raise an exception", lambda point: _raise(InjectedFault(f"{VARIABLE} at {point}"))),
    "hang": ("never return", lambda point: _hang()),
    "enospc": (
        "raise the error of a full disk",
        lambda point: _raise(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    ),
    "erofs": (
        "raise the error of a read-only disk",
        lambda point: _raise(OSError(errno.EROFS, os.strerror(errno.EROFS))),
    ),
    "oom": (
        "raise torch's error of too little memory on a CPU",
        lambda point: _raise(
            RuntimeError(f"DefaultCPUAllocator: can't allocate memory ({VARIABLE} at {point})")
        ),
    ),
}
"""Action -> what it does, and the function that does it."""


@dataclass
class _Fault:
    action: str
    point: str
    first: int = 1
    """At which passing of the point, counted from 1."""
    again: bool = False
    """Also at every later one."""
    passed: int = 0

    def meet(self) -> None:
        self.passed += 1
        if self.passed == self.first or (self.again and self.passed > self.first):
            ACTIONS[self.action][1](self.point)


_armed: list[_Fault] = []


def fault_point(name: str) -> None:
    """A point at which `arm` may have put a fault; does nothing otherwise."""
    if _armed:
        for fault in _armed:
            if fault.point == name:
                fault.meet()


def arm(text: str) -> None:
    """Put the faults of a comma-separated list in place of those armed before.

    Raises UserInputError for every entry with an unknown action, point or count.
    """
    problems: list[Problem] = []
    faults = [_parse(entry.strip(), problems) for entry in text.split(",") if entry.strip()]
    if problems:
        raise UserInputError(problems)
    _armed[:] = [fault for fault in faults if fault is not None]


def _parse(entry: str, problems: list[Problem]) -> _Fault | None:
    """``ACTION@POINT``, ``ACTION@POINT:N`` or ``ACTION@POINT:N+``."""
    action, _, place = entry.partition("@")
    point, _, count = place.rpartition(":")
    if not count.removesuffix("+").isdigit():
        point, count = place, "1"
    again, first = count.endswith("+"), int(count.removesuffix("+"))
    found = len(problems)
    if action not in ACTIONS:
        problems.append(_unknown(entry, "action", action, ACTIONS))
    if point not in POINTS:
        problems.append(_unknown(entry, "point", point, POINTS))
    if first < 1:
        problems.append(Problem(VARIABLE, f"{entry}: passings count from 1; write :1 or more"))
    return None if len(problems) > found else _Fault(action, point, first, again)


def _unknown(entry: str, kind: str, value: str, known: Mapping[str, object]) -> Problem:
    text = f"{entry}: found {value!r} as {kind}; write ACTION@POINT[:N], {kind} one of "
    return Problem(VARIABLE, text + ", ".join(known))
