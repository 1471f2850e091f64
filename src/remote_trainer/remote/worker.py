"""What runs in each worker of Ray Train: the same pipeline as without Ray."""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from remote_trainer.config import parse_config
from remote_trainer.errors import RemoteTrainerError, RunInterrupted, UserInputError
from remote_trainer.faults import arm
from remote_trainer.paths import refuse_if_locked
from remote_trainer.processes import VARIABLES, is_main
from remote_trainer.progress import SILENT
from remote_trainer.remote.channel import NAMESPACE, WarningsToDriver, as_message, watch_of

PATIENCE_SECONDS = 60.0


def run_worker(task: Mapping[str, Any]) -> None:
    """One attempt of one worker. ``task`` holds: channel (name of the actor), config (YAML with
    every value), config_text (as given), resume, allow_changed, folder (working directory), faults
    (of ``RT_FAULT``, for the main worker's first attempt).

    Errors of this program are told to the driver, which ends the run; anything else is raised, and
    Ray Train starts all workers again.
    """
    _prepare(Path(task["folder"]))
    channel = ray.get_actor(task["channel"], NAMESPACE)
    try:
        if is_main():
            _lead(task, channel)
        else:
            _run(task, task["resume"], SILENT)
    except RunInterrupted as error:
        if is_main():  # all of them stop at the same update
            ray.get(channel.tell.remote("error", as_message(error)))
    except RemoteTrainerError as error:
        ray.get(channel.tell.remote("error", as_message(error)))


def _lead(task: Mapping[str, Any], channel: Any) -> None:
    """The main worker, which tells the driver what happens."""
    tell = channel.tell.remote
    logging.getLogger("remote_trainer").addHandler(WarningsToDriver(tell))
    attempt, opened = ray.get(channel.begin.remote())
    arm(task["faults"] if attempt == 1 else "")  # each attempt would count its passings anew
    if attempt > 1:
        tell("stage", f"a worker was lost; attempt {attempt} goes on from the newest checkpoint")
    watch = watch_of(tell, lambda: ray.get(channel.stop_code.remote()))
    result = _run(task, "auto" if opened else task["resume"], watch)
    ray.get(tell("result", result))


def _run(task: Mapping[str, Any], resume: str, watch: Any) -> dict[str, Any]:
    # It must be imported after the environment is prepared.
    from remote_trainer.pipeline.train import run

    config = parse_config(task["config"], "the config of the driver")
    if is_main():
        _wait_for(Path(config.output_dir))
    return run(config, task["config_text"], resume, task["allow_changed"], watch)


def _prepare(folder: Path) -> None:
    """The working directory of the driver, if this machine has it; a single worker is a plain
    process."""
    if folder.is_dir():
        os.chdir(folder)
    if int(os.environ["WORLD_SIZE"]) == 1:
        for name in VARIABLES:
            os.environ.pop(name, None)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _wait_for(folder: Path) -> None:
    """Wait until the worker of the attempt before has left the run folder."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            refuse_if_locked(folder)
        except UserInputError:
            time.sleep(0.5)
        else:
            return
