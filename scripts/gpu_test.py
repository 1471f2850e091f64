"""Run tests/gpu: a table of its cases at the end, and gpu-report.json for a bug report.

python scripts/gpu_test.py [arguments for pytest ...]
python scripts/gpu_test.py --card    only: is there a card? before anything is fetched for it

Exit 1 with one sentence where there is no card, unless GPU_DRY asks for the steps that need none.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.environment import COMPUTING, describe_environment, version_of
from remote_trainer.models.hardware import driver_gpus

ROOT = Path(__file__).parents[1]
NO_CARD = (
    "make test-gpu needs an NVIDIA GPU with its driver, and nvidia-smi lists none here; "
    "GPU_DRY=1 make test-gpu runs the steps that need no card"
)
LAST_CHARACTERS = 4000
"""Of what is said of a failure, which names folders of this machine's user as ~."""


@dataclass
class Case:
    """One test: its set-up and the runs that it waits for count."""

    name: str
    result: str = "PASS"
    """PASS, FAIL or SKIP."""
    seconds: float = 0.0
    peak_gib: float | None = None
    """Of the card's memory, all processes together; in a dry run of the largest process so far."""
    said: str = ""
    """Why it failed or was skipped."""


class PeakMemory(threading.Thread):
    """Asks nvidia-smi how much memory is used, twice a second; keeps the most since `take`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._program = shutil.which("nvidia-smi")
        self._most = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        while self._program and not self._over.wait(0.5):
            asked = [self._program, "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            first = done.stdout.split("\n")[0].strip()
            self._most = max(self._most, float(first) / 1024 if first.isdigit() else 0.0)

    def take(self) -> float:
        """GiB."""
        if self._program is None:
            return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        most, self._most = self._most, 0.0
        return most

    def stop(self) -> None:
        self._over.set()


@dataclass
class Report:
    """Cases in the order in which they ran."""

    dry: bool
    cases: dict[str, Case] = field(default_factory=dict)

    def see(self, name: str, outcome: str, seconds: float, peak_gib: float, said: str) -> None:
        """One phase (set-up, call, tear-down) of a case, as pytest reports it."""
        case = self.cases.setdefault(name, Case(name))
        case.seconds += seconds
        case.peak_gib = max(case.peak_gib or 0.0, peak_gib)
        if outcome != "passed":
            case.result = "FAIL" if outcome == "failed" else "SKIP"
            case.said = said.replace(str(Path.home()), "~")[-LAST_CHARACTERS:]

    def as_json(self) -> dict[str, Any]:
        """What a bug report needs; no names of this machine or its user."""
        return {
            "dry": self.dry,
            "passed": not any(case.result == "FAIL" for case in self.cases.values()),
            "environment": describe_environment() | {n: version_of(n) for n in COMPUTING},
            "gpus": [asdict(gpu) for gpu in driver_gpus()],
            "cases": [asdict(case) for case in self.cases.values()],
        }


def table(cases: Sequence[Case]) -> list[str]:
    """Lines: case, result, seconds, peak memory."""
    width = max((len(case.name) for case in cases), default=4)
    lines = [f"{'case':{width}}  result  seconds  peak GiB"]
    for case in cases:
        peak = "-" if case.result == "SKIP" else f"{case.peak_gib or 0.0:.1f}"
        lines.append(f"{case.name:{width}}  {case.result:6}  {case.seconds:7.1f}  {peak:>8}")
    return lines


class Plugin:
    """Tells pytest what to do with the cases."""

    def __init__(self, dry: bool, file: Path) -> None:
        self.report, self._file, self._memory = Report(dry), file, PeakMemory()

    def pytest_sessionstart(self) -> None:
        self._memory.start()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        name = report.nodeid.rpartition("::")[2]
        self.report.see(name, report.outcome, report.duration, self._memory.take(), said)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self._memory.stop()
        terminalreporter.section("GPU")
        for line in table(list(self.report.cases.values())):
            terminalreporter.write_line(line)
        told = json.dumps(self.report.as_json(), indent=1) + "\n"
        self._file.write_text(told, encoding="utf-8")
        terminalreporter.write_line(f"all of it, to attach to a bug report: {self._file}")


def main(arguments: Sequence[str]) -> int | str:
    """Exit status, or the sentence that is printed with status 1."""
    dry = bool(os.environ.get("GPU_DRY"))
    if not dry and not driver_gpus():
        return NO_CARD
    if "--card" in arguments:
        return 0
    asked = ["-m", "gpu", str(ROOT / "tests/gpu"), *arguments]
    return int(pytest.main(asked, plugins=[Plugin(dry, Path("gpu-report.json").absolute())]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
