"""Commands in processes that are forked from one in which torch and TRL are loaded already."""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

PATIENCE_S = 300.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["preloaded"])


@dataclass
class Command:
    """A command in a process of its own, and what it prints."""

    process: ForkServerProcess
    output: Path

    def wait(self) -> int:
        """Its exit code; minus the number of the signal that killed it."""
        self.process.join(PATIENCE_S)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"no end after {PATIENCE_S} s: {self.text}")
        return int(self.process.exitcode)

    @property
    def text(self) -> str:
        """What it printed so far, on both streams."""
        return self.output.read_text() if self.output.exists() else ""


def start(
    *arguments: object,
    output: Path,
    environment: Mapping[str, str] | None = None,
    patches: Mapping[str, object] | None = None,
) -> Command:
    """Begin ``remote-trainer ARGUMENTS`` in the folder of ``output``.

    ``patches`` are values of names ``module:name`` in that process.
    """
    told = (tuple(map(str, arguments)), dict(environment or {}), dict(patches or {}), str(output))
    process = _context.Process(target=_run, args=told)
    here = [str(Path(__file__).parent), *sys.path]
    # The process that the others fork from reads these when the first one starts. Other tests start
    # programs of other environments, so the path does not stay.
    for_server = {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(here)),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    with mock.patch.dict(os.environ, for_server):
        process.start()
    return Command(process, output)


def _run(
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    patches: Mapping[str, object],
    output: str,
) -> None:
    # Loaded already; the process of the test itself does not need it.
    from remote_trainer.cli.app import main

    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(Path(output).parent)
    os.environ.update(environment)
    for place, value in patches.items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    sys.argv = ["remote-trainer", *arguments]
    main()
