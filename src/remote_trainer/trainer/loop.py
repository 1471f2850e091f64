"""One training run: resume, train, stop, and restore the resulting adapter."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig
from remote_trainer.engines.protocol import Backend
from remote_trainer.errors import RunInterrupted
from remote_trainer.planning.length import updates_of
from remote_trainer.processes import is_main, join, process_count, shared
from remote_trainer.progress import SILENT, ProgressCallbacks
from remote_trainer.records import EncodedRow
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer import checkpoint
from remote_trainer.trainer.grpo import RewardTrainer
from remote_trainer.trainer.run_log import RunLog
from remote_trainer.trainer.stop import Saved, StopRequest

logger = logging.getLogger(__name__)


def train(
    backend: Backend,
    reward: RewardFunction,
    rows: Sequence[EncodedRow],
    config: RunConfig,
    folder: RunDir,
    resume_from: Path | None = None,
    held_out: Sequence[EncodedRow] = (),
    watch: ProgressCallbacks = SILENT,
    vllm: bool = False,
) -> None:
    """Train the adapter of ``backend`` in place.

    ``watch`` gets every line of metrics.jsonl with the number of updates of the whole run, is told
    of every checkpoint, and can ask for the end of the run. The guard probes some of the
    ``held_out`` rows (of ``rows`` if there are none) and writes guard.json. If it stops the run, or
    with ``keep: best``, ``backend`` ends with an earlier adapter. With ``vllm``, TRL samples with
    vLLM. Of several processes only the main one writes, and all train the same adapter.

    Raises RunInterrupted after SIGINT or SIGTERM (a checkpoint is written first),
    NonFiniteLossError and NonFiniteRewardError before a NaN or infinity reaches the weights.
    """
    join()
    log = RunLog(folder, watch.line)
    stop = StopRequest(watch.stop_code)
    callbacks = [stop, Saved(watch.saved)]
    trainer = RewardTrainer(backend, reward, rows, config, folder, log, callbacks, held_out, vllm)
    manifest = checkpoint.verify(resume_from) if resume_from else {}
    start = manifest.get("step", 0)
    if is_main():
        _compare_processes(manifest)
        log.continue_after(start)
        checkpoint.drop_after(folder, start)
    trainer.restore_guard(resume_from)
    # TRL would do one more update after the last.
    if resume_from and (trainer.guard_callback.stopped or start >= updates_of(config, len(rows))):
        checkpoint.read_adapter(resume_from, trainer.model)
    else:
        with stop:
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    unfinished = trainer.state.global_step < trainer.state.max_steps
    # Only the main process has a guard, and a signal may have reached some of them.
    exit_code = shared(stop.exit_code)
    if exit_code is not None and unfinished and not shared(trainer.guard_callback.stopped):
        raise RunInterrupted(
            f"stopped by a signal after update {trainer.state.global_step}; a checkpoint is in "
            f"{folder.checkpoints}, and the same command resumes from it",
            exit_code,
        )
    if is_main():
        trainer.guard_callback.finish()


def _compare_processes(manifest: Mapping[str, Any]) -> None:
    """Warn if the checkpoint was written by another number of processes."""
    before, now = manifest.get(checkpoint.PROCESSES, 1), process_count()
    if manifest and before != now:
        logger.warning(
            "the checkpoint was written by %d processes, and %d resume from it: an update sees "
            "another number of prompts, unless training.gradient_accumulation_steps is changed too",
            before,
            now,
        )
