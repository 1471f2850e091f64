"""Exports killed with SIGKILL: nothing looks finished, and the next call finishes and cleans up."""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from test_export import TARGETS, write_adapter

from remote_trainer.config import dump_config, parse_config
from remote_trainer.pipeline.export import export_trained, is_proven
from remote_trainer.run_dir import RunDir, write_json, write_text

# Imported once and inherited by every process that is killed here.
PRELOADED = [
    "bitsandbytes",
    "transformers.models.llama.modeling_llama",
    "remote_trainer.engines.transformers_backend",
    "remote_trainer.export.dequantized",
    "remote_trainer.export.merged_16bit",
    "remote_trainer.pipeline.export",
    "remote_trainer.trainer.checkpoint",
    "test_killed_exports",
]
DEADLINE = 120.0

Event = Callable[[str, tuple[Any, ...]], bool]


def temporary_folder_is_there(event: str, arguments: tuple[Any, ...]) -> bool:
    """The first file inside is opened."""
    return event == "open" and ".partial/" in str(arguments[0])


def reader_starts(event: str, arguments: tuple[Any, ...]) -> bool:
    """All is written, nothing is proven."""
    readers = ("remote_trainer.export.verify_transformers", "remote_trainer.llama_cpp.verify")
    return event == "subprocess.Popen" and any(name in str(arguments[1]) for name in readers)


def name_is_given(event: str, arguments: tuple[Any, ...]) -> bool:
    """The proof is written; the rename would be next."""
    return event == "os.rename" and str(arguments[0]).endswith(".partial")


def export(target: Path, form: str, gguf_type: str | None) -> str:
    folder, proof = export_trained(target, form, gguf_type)
    assert folder.exists()
    return str(proof["verdict"])


def export_until(
    moment: Event | None, environment: dict[str, str], target: Path, form: str, kind: str | None
) -> None:
    """In a process of its own: gone by SIGKILL just before an event."""
    os.environ.update(environment)
    tempfile.tempdir = None  # asked again, with TMPDIR

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if moment is not None and moment(event, arguments):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    export(target, form, kind)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServerContext]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        context.Process(target=os.getpid).start()
        yield context


@pytest.fixture(scope="module")
def finished_run(wide_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """What a run of one update leaves, as far as exports look at it."""
    from remote_trainer.trainer.checkpoint import write_adapter as write_tensors
    from remote_trainer.trainer.checkpoint import write_manifest

    run = RunDir(tmp_path_factory.mktemp("runs") / "tiny")
    rows = [{"prompt": f"What is {i} + {i}?", "answer": f"{2 * i}"} for i in range(4)]
    data = run.root.parent / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model": {"name": str(wide_folder)},
        "lora": {"r": 4, "alpha": 8, "target_modules": list(TARGETS)},
        "data": {"train": str(data), "eval": "none"},
        "evaluation": {"max_completion_length": 4},
        "output_dir": str(run.root),
    }
    write_text(run.resolved_config, dump_config(parse_config(json.dumps(settings), "c")))
    write_json(run.data_report, {"train": {"sha256": "0" * 64}})
    write_json(run.guard, {"result_step": 1})
    write_json(run.environment, {"python": "3"})
    write_json(run.eval, {})
    backend = write_adapter(wide_folder, run.adapter, 0.3)
    run.checkpoint(1).mkdir(parents=True)
    write_tensors(run.checkpoint(1), backend.model)
    for name in ("optimizer.safetensors", "rng.safetensors", "state.json", "trainer_state.json"):
        (run.checkpoint(1) / name).touch()  # listed, and not read by an export
    write_manifest(run.checkpoint(1), {"step": 1})
    return run


def seen(folder: Path) -> dict[str, str]:
    """Every file that is in no hidden folder, with its content."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def appeared(folder: Path, pattern: str) -> bool:
    """Whether there is such a file; not yet, if a folder goes away while it is looked for.

    An export clears away what the one before it left.
    """
    try:
        return any(folder.rglob(pattern))
    except FileNotFoundError:
        return False


def hidden(folder: Path) -> set[Path]:
    return {path for path in folder.rglob(".*") if path.is_dir()}


class Killer:
    """Starts exports and kills them."""

    def __init__(self, context: ForkServerContext, run: RunDir, scratch: Path) -> None:
        self.context, self.run, self.scratch = context, run, scratch

    def start(self, moment: Event | None, target: Path, form: str, kind: str | None) -> Any:
        environment = {**os.environ, "TMPDIR": str(self.scratch)}
        process = self.context.Process(
            target=export_until, args=(moment, environment, target, form, kind)
        )
        process.start()
        return process

    def kill_at(self, moment: Event, target: Path, form: str, kind: str | None = None) -> None:
        """Nothing can be seen of an export that died, and nothing is left of the one before."""
        before, left = seen(self.run.root), hidden(self.run.root)
        process = self.start(moment, target, form, kind)
        process.join(DEADLINE)
        self.judge(process, before, left)

    def kill_when(self, pattern: str, target: Path, form: str, kind: str | None = None) -> None:
        """The same as soon as a file is seen that another program writes."""
        before, left = seen(self.run.root), hidden(self.run.root)
        process, end = self.start(None, target, form, kind), time.monotonic() + DEADLINE
        while process.is_alive() and not appeared(self.run.root, pattern):
            assert time.monotonic() < end, f"no {pattern} appeared"
            time.sleep(0.002)
        process.kill()
        process.join(DEADLINE)
        self.judge(process, before, left)

    def judge(self, process: Any, before: dict[str, str], left: set[Path]) -> None:
        assert process.exitcode == -signal.SIGKILL
        assert seen(self.run.root) == before
        assert hidden(self.run.root)
        assert not hidden(self.run.root) & left
        assert list(self.scratch.iterdir()) == []

    def finish(self, target: Path, form: str, kind: str | None = None) -> None:
        assert export(target, form, kind) == "PASS"
        assert hidden(self.run.root) == set()
        assert list(self.scratch.iterdir()) == []


@pytest.fixture
def killer(processes: ForkServerContext, finished_run: RunDir, tmp_path: Path) -> Killer:
    (tmp_path / "system").mkdir()
    return Killer(processes, finished_run, tmp_path / "system")


def test_a_checkpoint_s_adapter_and_its_gguf(
    killer: Killer, finished_run: RunDir, toy_gguf: Path
) -> None:
    """The converter outlives its parent; what it goes on to write is nobody's file."""
    target = finished_run.checkpoint(1)
    killer.kill_at(temporary_folder_is_there, target, "lora")
    killer.kill_at(reader_starts, target, "lora")
    killer.finish(target, "lora")
    folder = finished_run.root / "exports/step-000001/lora"
    assert is_proven(folder)
    killer.kill_when("adapter-f16.gguf", target, "lora", "f16")
    killer.finish(target, "lora", "f16")
    assert (folder / "adapter-f16.gguf").exists()


def test_a_merge_in_16_bits(killer: Killer, finished_run: RunDir) -> None:
    for moment in (temporary_folder_is_there, reader_starts, name_is_given):
        killer.kill_at(moment, finished_run.root, "merged_16bit")
    killer.finish(finished_run.root, "merged_16bit")


def test_a_merge_in_4_bits(killer: Killer, finished_run: RunDir) -> None:
    for moment in (temporary_folder_is_there, reader_starts):
        killer.kill_at(moment, finished_run.root, "merged_4bit")
    killer.finish(finished_run.root, "merged_4bit")


def test_a_gguf(killer: Killer, finished_run: RunDir, toy_gguf: Path) -> None:
    killer.kill_at(temporary_folder_is_there, finished_run.root, "gguf", "q8_0")
    killer.kill_when("model-q8_0.gguf", finished_run.root, "gguf", "q8_0")
    killer.finish(finished_run.root, "gguf", "q8_0")
