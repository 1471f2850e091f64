"""Runs commands on changed inputs, in a child with little memory, and says what went wrong.

    python tests/fuzz/fuzz.py --first 0 --count 500
    python tests/fuzz/fuzz.py --first 1234 --count 1 --show

An input depends on its seed only. The last line is the result as JSON.
"""

import argparse
import io
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from inputs import KINDS, Input
from world import MARK, make_world

SECONDS, STUCK_S = 10, 15
"""For an input; a child that does not even notice the first is killed after the second."""
MEMORY = 2**30
"""Bytes that all inputs of a child together may take beside what its imports took."""
SETTINGS = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
SETTINGS["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the others reserve more than they use


class ReachedModel(BaseException):
    """The command would load the model now: it accepted the input."""


class TooSlow(BaseException):
    """The time of an input is over."""


@dataclass(frozen=True)
class Outcome:
    """What a command did with the input of a seed."""

    seed: int
    kind: str
    seconds: float
    code: int | None
    """None: it ended with an exception, or not at all."""
    wrong: str = ""
    """Empty if it was right."""
    peak_mb: float = 0.0
    """Of the process."""


def input_of(seed: int, kinds: Sequence[str], home: Path) -> tuple[str, Input]:
    """The kind and the input of a seed."""
    rng = Random(seed)
    name = kinds[seed % len(kinds)]
    return name, KINDS[name].make(rng, home)


class Runner:
    """Runs commands in this process, which is a child."""

    def __init__(self, root: Path, home: Path, show: bool) -> None:
        self._root, self._home, self._show = root, home, show
        self._originals: dict[str, bytes | None] = {}
        self._folders: list[Path] = []
        """Made for the input, and removed after it."""
        self._out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        self._whole = root / "whole"
        if not self._whole.exists():
            shutil.copytree(home, self._whole)
        self._around = sorted(os.listdir(root))

    def run(self, seed: int, kind: str, given: Input) -> Outcome:
        """Write the files, run the command, and put everything back."""
        self._place(given)
        if self._show:
            print(kind, given.command, given.special, file=sys.__stderr__)
            for name, data in given.files.items():
                print(f"{name}: {data[:2000]!r}", file=sys.__stderr__)
        Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is counted anew
        started = time.perf_counter()
        code, wrong = self._call(given.command, KINDS[kind].codes)
        seconds = time.perf_counter() - started
        wrong = wrong or self._traces()
        self._restore(given)
        return Outcome(seed, kind, round(seconds, 3), code, wrong, peak_mb())

    def _call(self, command: Sequence[str], codes: frozenset[int]) -> tuple[int | None, str]:
        from remote_trainer.cli import main

        sys.argv = ["remote-trainer", *command]
        sys.stdout = sys.stderr = self._out
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = 0 if end.code is None else end.code
        except ReachedModel:
            code = 0
        except TooSlow:
            return None, f"took more than {SECONDS} s:\n{traceback.format_exc(limit=-6)}"
        except BaseException:
            return None, traceback.format_exc(limit=-8)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        text = self._text()
        if code not in codes:
            return code, f"exit code {code}: {text[-500:]}"
        return code, f"a traceback: {text[-1000:]}" if "Traceback" in text else ""

    def _text(self) -> str:
        """What was printed since the last call."""
        self._out.seek(0)
        text = self._out.read()
        self._out.seek(0)
        self._out.truncate()
        if self._show:
            print(text, file=sys.__stderr__)
        return text

    def _traces(self) -> str:
        if (self._root / MARK).exists():
            (self._root / MARK).unlink()
            return "code inside the input was run"
        if sorted(os.listdir(self._root)) != self._around or os.listdir(self._root / "outside"):
            return f"files outside: {os.listdir(self._root)} {os.listdir(self._root / 'outside')}"
        return ""

    def _place(self, given: Input) -> None:
        for name in (*given.files, *given.special):
            path = self._home / name
            self._originals[name] = path.read_bytes() if path.is_file() else None
            path.unlink(missing_ok=True)
        for name, data in given.files.items():
            path = self._home / name
            if not path.parent.exists():  # of a run without an adapter, for example
                path.parent.mkdir()
                self._folders.append(path.parent)
            path.write_bytes(data)
        for name, make in given.special.items():
            make(self._home / name)

    def _restore(self, given: Input) -> None:
        for name, data in self._originals.items():
            path = self._home / name
            with suppress(FileNotFoundError):
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            if data is not None:
                path.write_bytes(data)
        self._originals.clear()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)
        self._folders.clear()
        if given.command[0] == "train":  # it writes into its folder before it loads a model
            for name in ("run", "stopped"):
                shutil.rmtree(self._home / name)
                shutil.copytree(self._whole / name, self._home / name)
        for name in ("new", "out", "x.html", "out.jsonl", "run/.lock", "run/stacks.txt"):
            path = self._home / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def peak_mb() -> float:
    """Most memory of this process since the peak was reset, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def child(
    kinds: Sequence[str], seeds: range, report: int, root: Path, show: bool, unchanged: bool
) -> None:
    """Runs seeds; writes each one before and its outcome after."""
    home = root / "home"
    os.chdir(home)
    torch = any(KINDS[name].torch for name in kinds)
    if torch:
        _patch_loading()
    else:
        _import_all()
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    runner = Runner(root, home, show)
    for seed in seeds:
        kind, given = input_of(seed, kinds, home)
        given = replace(given, files={}, special={}) if unchanged else given
        os.write(report, f"{json.dumps([seed, kind])}\n".encode())
        outcome = runner.run(seed, kind, given)
        if not torch and "torch" in sys.modules:
            outcome = Outcome(seed, kind, outcome.seconds, outcome.code, "torch was imported")
        os.write(report, f"{json.dumps(asdict(outcome))}\n".encode())


def _too_slow(*_: object) -> None:
    raise TooSlow


def _import_all() -> None:
    import pyarrow.parquet  # noqa: F401

    import remote_trainer.pipeline.check
    import remote_trainer.pipeline.report  # noqa: F401


def _patch_loading() -> None:
    import remote_trainer.trainer.checkpoint  # noqa: F401
    from remote_trainer.pipeline import evaluate, export, score, train

    for module in (evaluate, export, score):
        vars(module)["load_backend"] = _reached
    vars(train)["load_trainable"] = _reached


def _reached(*_: object, **__: object) -> None:
    raise ReachedModel


def outcomes(
    kinds: Sequence[str], seeds: range, show: bool = False, unchanged: bool = False
) -> Iterator[Outcome]:
    """The outcome of each seed. A child that dies is replaced, and its seed was wrong."""
    left = seeds
    while left:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            root = Path(folder)
            make_world(root)
            os.environ.update(SETTINGS, REMOTE_TRAINER_CACHE=str(root / "home" / "cache"))
            done = yield from _of_child(kinds, left, root, show, unchanged)
        left = range(done, left.stop, left.step)


def _of_child(
    kinds: Sequence[str], seeds: range, root: Path, show: bool, unchanged: bool
) -> Generator[Outcome, None, int]:
    """Yields outcomes; returns the seed to go on with."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            child(kinds, seeds, writing, root, show, unchanged)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writing)
    running: tuple[int, str] | None = None
    after = seeds.start
    with os.fdopen(reading) as lines:
        while True:
            ready = select.select([lines], [], [], 120 if running is None else STUCK_S)[0]
            line = lines.readline() if ready else ""
            if not line:
                break
            found = json.loads(line)
            if isinstance(found, list):
                running = (found[0], found[1])
                continue
            running = None
            after = found["seed"] + seeds.step
            yield Outcome(**found)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if running is None:
        if after == seeds.start:
            raise RuntimeError(f"no input was made for seed {after} (status {status})")
        return after
    how = "was stuck" if not os.WIFEXITED(status) else "ended the process"
    yield Outcome(*running, float(STUCK_S), None, f"{how} (status {status})")
    return running[0] + seeds.step


def summary(found: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Counts, the slowest input and everything that was wrong."""
    slowest = max(found, key=lambda each: each.seconds, default=None)
    kinds: dict[str, Counter[str]] = {}
    for each in found:
        kinds.setdefault(each.kind, Counter())[str(each.code)] += 1
    return {
        "inputs": len(found),
        "codes": {name: dict(counts) for name, counts in sorted(kinds.items())},
        "slowest": slowest and [slowest.seed, slowest.kind, slowest.seconds],
        "peak_mb": round(max((each.peak_mb for each in found), default=0.0), 1),
        "seconds": round(seconds, 1),
        "wrong": [asdict(each) for each in found if each.wrong],
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--torch", action="store_true", help="the kinds that import torch")
    parser.add_argument("--kind", help="only this one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then stop")
    parser.add_argument("--unchanged", action="store_true", help="the files as they were")
    parser.add_argument("--show", action="store_true", help="print inputs and outputs")
    given = parser.parse_args()
    kinds = [name for name, kind in KINDS.items() if kind.torch == given.torch]
    kinds = [given.kind] if given.kind else kinds
    if given.unchanged:
        kinds = [name for name in kinds if name not in ("config", "override")]
    started, found = time.perf_counter(), []
    seeds = range(given.first, given.first + given.count)
    for outcome in outcomes(kinds, seeds, given.show, given.unchanged):
        found.append(outcome)
        if outcome.wrong:
            print(json.dumps(asdict(outcome)), file=sys.stderr, flush=True)
        if time.perf_counter() - started > given.seconds:
            break
    print(json.dumps(summary(found, time.perf_counter() - started)))


if __name__ == "__main__":
    main()
