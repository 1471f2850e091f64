"""A run on another machine: submitted, followed, stopped. It goes on when the client is gone."""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from remote_trainer import __version__
from remote_trainer.config import RunConfig
from remote_trainer.errors import UserInputError
from remote_trainer.mirror import Mirror
from remote_trainer.remote.fetch import MachineSource, Source, StorageSource
from remote_trainer.remote.jobs import ConnectionLostError, Job, JobsClient, RemoteError
from remote_trainer.remote.packing import entrypoint, pack
from remote_trainer.remote.ssh import Machine
from remote_trainer.run_dir import RunDir

RUNS = "~/remote_trainer_runs"
"""Folder of the runs on the machine, unless the config names an absolute one."""
STOP_SECONDS = 600
"""Time that a stopped run has for its checkpoint; Ray's own default is 3 seconds."""
POLL_SECONDS, LOST_SECONDS = 2.0, 300.0
BYTES_PER_SECOND = 200_000
Answer = TypeVar("Answer")


def submit(
    client: JobsClient,
    config_file: Path,
    config: RunConfig,
    set_: list[str],
    workers: int | None = None,
    on_done: str | None = None,
) -> Job:
    """Send a config with its data and start the run; returns the job.

    Raises UserInputError that lists everything that cannot be sent.
    """
    package = pack(config_file, config)
    job_id = _new_id(config_file)
    output = config.output_dir
    if not Path(output).is_absolute():
        output = f"{RUNS}/{job_id}"
    words = ["config.yaml"]
    for override in (*set_, *package.overrides, f"output_dir={output}"):
        words += ["--set", override]
    if workers is not None:
        words += ["--workers", str(workers)]
    metadata = {
        "output_dir": output,
        "storage": config.distributed.storage or "",
        "remote_trainer": __version__,
    }
    runtime_env = {
        "working_dir": client.upload(package.name, package.content),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "PYTHONUNBUFFERED": "1"},
    }
    client.submit(job_id, entrypoint(words, on_done), runtime_env, metadata)
    return client.job(job_id)


def _new_id(config_file: Path) -> str:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", config_file.stem).strip("-")[:40] or "run"
    return f"{stem}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def find_job(client: JobsClient, job_id: str | None) -> Job:
    """A job by its id; without one, the newest of this program."""
    if job_id is not None:
        return client.job(job_id)
    ours = [job for job in client.jobs() if "remote_trainer" in job.metadata]
    if not ours:
        raise UserInputError.at("job", f"{client.address} has no job of remote-trainer yet")
    return ours[-1]


def follow_logs(
    client: JobsClient, job_id: str, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """What a job prints, until it ends. A lost connection is tried again for some minutes."""
    shown = 0
    while True:
        # The status is asked before the logs, so that none are missed.
        ended, text = _patiently(lambda: (client.job(job_id).ended, client.logs(job_id)), sleep)
        if len(text) > shown:
            yield text[shown:]
            shown = len(text)
        if ended:
            return
        # Each answer holds the whole log.
        sleep(max(POLL_SECONDS, len(text) / BYTES_PER_SECOND))


def source_of(job: Job, host: str | None) -> Source:
    """Where the run folder of a job can be read."""
    output, storage = job.metadata.get("output_dir"), job.metadata.get("storage")
    if output is None:
        raise UserInputError.at("job", f"{job.id} was not submitted by remote-trainer")
    if host is not None:
        return MachineSource(Machine.parse(host), output)
    if not storage:
        raise UserInputError.at(
            "--host",
            "Ray's dashboard cannot send files; write --host user@machine, or submit with "
            "--storage and a folder or URI that this machine reaches, too",
        )
    return StorageSource(Mirror(storage, RunDir(output)))


def stop(client: JobsClient, job_id: str, sleep: Callable[[float], None] = time.sleep) -> Job:
    """Stop a job and wait until its checkpoint is written and it has ended. While it waits, a lost
    connection is tried again for some minutes."""
    client.stop(job_id)
    waited = 0.0
    while not (job := _patiently(lambda: client.job(job_id), sleep)).ended:
        if waited > STOP_SECONDS + LOST_SECONDS:
            raise RemoteError(f"{job_id} was asked to stop {waited:.0f} s ago and has not ended")
        sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    return job


def _patiently(ask: Callable[[], Answer], sleep: Callable[[float], None]) -> Answer:
    """``ask()``, again for LOST_SECONDS while nobody answers."""
    for _ in range(int(LOST_SECONDS / POLL_SECONDS)):
        try:
            return ask()
        except ConnectionLostError:
            sleep(POLL_SECONDS)
    return ask()
