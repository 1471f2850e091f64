"""200 updates of the tiny model: left alone, disturbed ten times, and short of memory."""

import json
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from disturbed import new
from fake_container import FakeContainer, resident
from forked import PATIENCE_S, Command
from small_disk import fill, mounted
from tiny_run import New, TinyRun, assert_close, go_on, undisturbed

from remote_trainer.engines.token_budget import LEAST_TOKENS
from remote_trainer.run_dir import read_jsonl
from remote_trainer.trainer import checkpoint

__all__ = ["new"]  # fixture

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.long]

UPDATES = 200
# At this learning rate, a difference by rounding stays one: no other token is sampled.
TRAINING = {"max_steps": UPDATES, "save_steps": 5, "learning_rate": 1e-3}
SETTINGS: dict[str, Any] = {"changes": TRAINING, "more": {"guard": {"action": "warn"}}}
SEED = 25
FULL, KILL, TERM = "full", "kill", "term"
KINDS = [FULL] * 2 + [KILL] * 5 + [TERM] * 3
_LINE = re.compile(rf"^update (\d+)/{UPDATES}\b", re.M)


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed."""

    numbers: dict[str, Any]
    memory: dict[int, int]
    """Update -> bytes that the process held after it."""


@pytest.fixture(scope="module")
def whole(new: New, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    run = new(tmp_path_factory.mktemp("whole"), **SETTINGS)
    memory: dict[int, int] = {}
    command = run.start("raise@proof")
    for done in updates_of(command):
        memory.setdefault(done, resident(command.process.pid or 0))
    assert command.wait() == 1, command.text
    return Whole(undisturbed(run), memory)  # this trains nothing: it reads what is there


def updates_of(command: Command) -> Iterator[int]:
    """The update that a command did last (0 before its first), again and again until it ends."""
    until = time.monotonic() + PATIENCE_S
    while command.process.is_alive():
        assert time.monotonic() < until, command.text
        yield int((_LINE.findall(command.text) or [0])[-1])
        time.sleep(0.01)


def wait_for(command: Command, update: int, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Until the command itself has done this update."""
    for done in updates_of(command):
        meanwhile()
        if done >= update:
            return
    raise AssertionError(f"ended before update {update}: {command.text}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_memory_does_not_grow(whole: Whole, record_property: Callable[[str, object], None]) -> None:
    def about(update: int) -> float:
        return median(whole.memory[n] for n in range(update - 4, update + 1) if n in whole.memory)

    early, late = about(20), about(UPDATES)
    record_property("bytes after updates 20 and 200", (early, late))
    assert late <= 1.05 * early


@dataclass(frozen=True)
class Disturbance:
    """What happens to a run ``share`` of an update's time after ``update``."""

    kind: str
    update: int
    share: float


def disturbances(draw: random.Random) -> list[Disturbance]:
    kinds = draw.sample(KINDS, len(KINDS))
    updates = sorted(draw.sample(range(3, UPDATES - 10), len(KINDS)))
    return [Disturbance(*each, draw.random()) for each in zip(kinds, updates, strict=True)]


def newest(run: TinyRun) -> int:
    """Updates in the newest whole checkpoint, whose files are as they were written."""
    held = [checkpoint.verify(folder)["step"] for folder in run.folder.complete_checkpoints()]
    return max(held, default=0)


def disturb(run: TinyRun, disk: Path | None, what: Disturbance) -> None:
    """The command goes on where the newest whole checkpoint is, and is stopped or fails."""
    before = newest(run)
    filled_elsewhere = what.kind == FULL and disk is None
    command = run.start("enospc@save:rng" if filled_elsewhere else "raise@proof")
    if not filled_elsewhere:
        wait_for(command, what.update)
        seconds = median(line["seconds_step"] for line in read_jsonl(run.folder.metrics))
        time.sleep(what.share * seconds)
    expected = 1
    filler: Path | None = None
    if what.kind == KILL:
        command.process.kill()
        expected = -signal.SIGKILL
    elif what.kind == TERM:
        command.process.terminate()
        expected = 143
    elif disk is not None:
        filler = fill(disk)
    assert command.wait() == expected, f"{what}: {command.text}"
    if filler is not None:
        filler.unlink()
    text = command.text
    assert "Traceback" not in text
    assert ("the disk is full" in text) is (what.kind == FULL), text
    assert int(_LINE.findall(text)[0]) == before + 1, text
    steps = [line["step"] for line in read_jsonl(run.folder.metrics)]
    assert steps == list(range(1, len(steps) + 1))
    assert before <= newest(run) <= len(steps)


def test_disturbed_ten_times_it_ends_as_if_left_alone(
    whole: Whole, new: New, tmp_path: Path
) -> None:
    draw = random.Random(SEED)
    folder = tmp_path / "disk"
    with mounted(folder, megabytes=16) as why_not:
        run = new(folder, output=tmp_path, **SETTINGS)
        for what in disturbances(draw):
            disturb(run, None if why_not else folder, what)
        go_on(run, whole.numbers)


def test_short_of_memory_it_ends_within_the_tolerance(
    whole: Whole, new: New, tmp_path: Path
) -> None:
    """The container's limit is what the whole run held after ten updates. After a kill, the
    allocator fails at random moments, until passes are as small as they can be."""
    draw = random.Random(SEED)
    limit = whole.memory[10]
    container = FakeContainer(tmp_path / "container", limit)
    run = new(tmp_path / "short", **SETTINGS, patches=container.patches)
    command = run.start()
    pid = command.process.pid or 0
    killed_after = draw.randint(30, 60)
    wait_for(command, killed_after, lambda: container.use(min(limit, resident(pid))))
    command.process.kill()
    assert command.wait() == -signal.SIGKILL
    assert "(the memory of the container is nearly full)" in command.text
    lowered = tokens_per_pass(run)
    assert LEAST_TOKENS <= lowered <= 2048
    container.use(0)
    halvings = (lowered // LEAST_TOKENS).bit_length() - 1
    passings = draw.sample(range(1, 2 * (UPDATES - killed_after)), halvings)  # 2 micro-steps each
    code, text = run.train(",".join([*(f"oom@update:{n}" for n in passings), "raise@proof"]))
    assert (code, "RT_FAULT at proof" in text) == (1, True), text
    assert tokens_per_pass(run) == LEAST_TOKENS
    assert_close(run.numbers(), whole.numbers)


def tokens_per_pass(run: TinyRun) -> int:
    return int(json.loads(run.folder.environment.read_text())["tokens_per_pass"])
