"""One training run: resume, train, stop, and restore the resulting adapter."""

from collections.abc import Sequence
from pathlib import Path

from remote_trainer.config import RunConfig
from remote_trainer.engines.protocol import Backend
from remote_trainer.errors import RunInterrupted
from remote_trainer.planning.length import updates_of
from remote_trainer.records import EncodedRow
from remote_trainer.rewards import RewardFunction
from remote_trainer.run_dir import RunDir
from remote_trainer.trainer import checkpoint
from remote_trainer.trainer.grpo import RewardTrainer
from remote_trainer.trainer.run_log import OnLine, RunLog
from remote_trainer.trainer.stop import StopRequest


def train(
    backend: Backend,
    reward: RewardFunction,
    rows: Sequence[EncodedRow],
    config: RunConfig,
    folder: RunDir,
    resume_from: Path | None = None,
    held_out: Sequence[EncodedRow] = (),
    on_line: OnLine = lambda line, updates: None,
    vllm: bool = False,
) -> None:
    """Train the adapter of ``backend`` in place.

    ``on_line`` gets every line of metrics.jsonl and the number of updates of the whole run. The
    guard probes some of the ``held_out`` rows (of ``rows`` if there are none) and writes
    guard.json. If it stops the run, or with ``keep: best``, ``backend`` ends with an earlier
    adapter. With ``vllm``, TRL samples with vLLM.

    Raises RunInterrupted after SIGINT or SIGTERM (a checkpoint is written first),
    NonFiniteLossError and NonFiniteRewardError before a NaN or infinity reaches the weights.
    """
    log = RunLog(folder, on_line)
    stop = StopRequest()
    trainer = RewardTrainer(backend, reward, rows, config, folder, log, [stop], held_out, vllm)
    start = checkpoint.verify(resume_from)["step"] if resume_from else 0
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
    if stop.exit_code is not None and unfinished and not trainer.guard_callback.stopped:
        raise RunInterrupted(
            f"stopped by a signal after update {trainer.state.global_step}; a checkpoint is in "
            f"{folder.checkpoints}, and the same command resumes from it",
            stop.exit_code,
        )
    trainer.guard_callback.finish()
