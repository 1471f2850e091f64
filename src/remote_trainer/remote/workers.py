"""`train --workers N`: the driver, which starts the workers and shows what they tell."""

import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remote_trainer.config import RunConfig, dump_given
from remote_trainer.errors import RemoteTrainerError, RunInterrupted, UserInputError
from remote_trainer.faults import VARIABLE
from remote_trainer.mirror import mirror_of
from remote_trainer.processes import PATIENCE
from remote_trainer.progress import ProgressCallbacks
from remote_trainer.remote.channel import NAMESPACE, Channel, as_error
from remote_trainer.remote.token import require_token
from remote_trainer.run_dir import RunDir
from remote_trainer.stop_signals import StopSignals

logger = logging.getLogger(__name__)

ENVIRONMENT: Mapping[str, str] = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
ONE_MACHINE: Mapping[str, str] = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Also on Linux, Ray then listens on the loopback only; otherwise it replaces a given 127.0.0.1 by
the address that other machines reach."""
OBJECT_STORE_BYTES = 100_000_000
"""Of a cluster that is started for one run: workers exchange nothing through it."""
POLL_SECONDS, LAST_SECONDS = 0.2, 30.0


class WorkersFailedError(RemoteTrainerError):
    """Workers died more often than distributed.max_failures allows."""


def train_with_workers(
    config: RunConfig,
    config_text: str,
    workers: int,
    resume: str,
    allow_changed: bool,
    watch: ProgressCallbacks,
) -> dict[str, Any]:
    """Train with ``workers`` processes and return the content of eval.json.

    Uses the Ray cluster of ``RAY_ADDRESS`` (and of a submitted job), otherwise this machine.
    Raises the errors of `remote_trainer.pipeline.train.run`, and WorkersFailedError.
    """
    with _records(config.distributed.storage) as records, _cluster() as ray:
        resources = _resources(ray, workers, config.distributed.storage)
        name = f"channel-{secrets.token_hex(8)}"
        channel = ray.remote(num_cpus=0)(Channel).options(name=name, namespace=NAMESPACE).remote()
        task = {
            "channel": name,
            "config": dump_given(config),
            "config_text": config_text,
            "resume": resume,
            "allow_changed": allow_changed,
            "folder": str(Path.cwd()),
            "faults": os.environ.get(VARIABLE, ""),
        }
        fit = Fit(ray, task, workers, resources, config.distributed.max_failures, records)
        with StopSignals() as signals:
            result = _follow(ray, channel, fit, signals, watch)
    folder = RunDir(config.output_dir)
    if mirror := mirror_of(config.distributed.storage, folder):
        mirror.restore()  # the main worker may have run on another machine
    return result


class Fit:
    """Ray Train's call in a process of its own: it blocks, and Ray can end it at any moment."""

    def __init__(self, ray: Any, *arguments: Any) -> None:
        """``arguments``: those of `fit_workers`."""
        self._ray = ray
        node = ray.get_runtime_context().get_node_id()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        call = ray.remote(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=here,
            runtime_env={"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}},
        )(fit_workers)
        self._ref = call.remote(*arguments)

    def ended(self, seconds: float = 0) -> bool:
        """Whether the workers have ended, after waiting at most so long."""
        ready, _ = self._ray.wait([self._ref], timeout=seconds)
        return bool(ready)

    def error(self) -> Exception | None:
        """Why the workers ended; None: they did what they had to."""
        try:
            self._ray.get(self._ref)
        except Exception as error:  # of Ray Train, whose classes depend on its version
            return error
        return None


def fit_workers(
    task: dict[str, Any],
    workers: int,
    resources: Mapping[str, float],
    max_failures: int,
    records: str,
) -> None:
    """Run the workers until they have ended, restarting them at most ``max_failures`` times."""
    import ray.train
    import ray.train.torch

    from remote_trainer.remote.worker import run_worker  # it imports Ray

    ray.train.torch.TorchTrainer(
        run_worker,
        train_loop_config=task,
        torch_config=ray.train.torch.TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu="GPU" in resources,
            resources_per_worker=dict(resources),
        ),
        run_config=ray.train.RunConfig(
            name=task["channel"],
            storage_path=records,
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
        ),
    ).fit()


def _follow(
    ray: Any, channel: Any, fit: Fit, signals: StopSignals, watch: ProgressCallbacks
) -> dict[str, Any]:
    """Show what the main worker tells until it has a result."""
    trains, asked = False, False
    while True:
        ended = fit.ended()  # before the last messages are read
        for kind, values in ray.get(channel.take.remote()):
            trains = trains or kind == "trains"
            if kind == "result":
                fit.ended(LAST_SECONDS)
                return dict(values[0])
            if kind == "error":
                raise as_error(values[0])
            _show(kind, values, watch)
        if ended:
            raise WorkersFailedError(_why(fit.error()))
        if signals.exit_code is not None and not asked:
            asked = True
            if not trains:
                raise RunInterrupted("stopped by a signal before training", signals.exit_code)
            ray.get(channel.stop.remote(signals.exit_code))
        time.sleep(POLL_SECONDS)


def _show(kind: str, values: Sequence[Any], watch: ProgressCallbacks) -> None:
    if kind == "warning":
        logger.log(*values)
    elif kind in ("stage", "line", "progress"):
        getattr(watch, kind)(*values)


def _why(error: Exception | None) -> str:
    lines = str(error).strip().splitlines() if error else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no reason was given")
    return (
        f"the workers failed more often than distributed.max_failures allows; the last reason: "
        f"{last}. The same command goes on from the newest checkpoint"
    )


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected to a cluster: a given one, or one of this machine for this run."""
    given = os.environ.get("RAY_ADDRESS")
    # Ray reads them when it is imported.
    for name, value in (ENVIRONMENT if given else {**ENVIRONMENT, **ONE_MACHINE}).items():
        os.environ.setdefault(name, value)
    require_token()
    import ray
    import ray.util.scheduling_strategies

    own: dict[str, Any] = {
        "address": "local",
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    try:
        ray.init(
            **({} if given else own),
            namespace=NAMESPACE,
            log_to_driver=False,  # the main worker's messages come once, by the channel
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except ConnectionError as error:
        raise UserInputError.at(
            "RAY_ADDRESS",
            f"no cluster answers at {given} ({error}); write another address, or unset it to train "
            "on this machine",
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _resources(ray: Any, workers: int, storage: str | None) -> dict[str, float]:
    """What each worker gets; raises UserInputError if the cluster has too little."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) > 1 and storage is None:
        raise UserInputError.at(
            "--storage",
            f"the cluster has {len(nodes)} machines, and a checkpoint must reach all of them; "
            "write a folder or URI that they share",
        )
    return resources_of(nodes, workers)


def resources_of(nodes: Sequence[Mapping[str, float]], workers: int) -> dict[str, float]:
    """A GPU for each worker if the cluster has any, and as many CPUs as fit on every machine.

    Raises UserInputError if there are fewer GPUs (without GPUs: CPUs) than workers.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    places = [
        (int(node.get("CPU", 0)), int(node.get("GPU", 0)) if gpus else None) for node in nodes
    ]

    def fits(cpus: int) -> bool:
        found = [cpu // cpus if gpu is None else min(cpu // cpus, gpu) for cpu, gpu in places]
        return sum(found) >= workers

    most = max((cpu for cpu, _ in places), default=0)
    best = next((cpus for cpus in range(most, 0, -1) if fits(cpus)), None)
    if best is None:
        found = f"{gpus} GPUs" if gpus else f"{sum(cpu for cpu, _ in places)} CPUs"
        raise UserInputError.at(
            "--workers",
            f"{workers} workers need one {'GPU and one CPU' if gpus else 'CPU'} each, and the "
            f"cluster has {found}; write at most {gpus or sum(cpu for cpu, _ in places)}",
        )
    return {"CPU": best, "GPU": 1} if gpus else {"CPU": best}


@contextmanager
def _records(storage: str | None) -> Iterator[str]:
    """Ray Train wants a folder for its own records; no checkpoint of ours goes there."""
    if storage is not None:
        yield f"{storage if '://' in storage else Path(storage).resolve()}/.ray"
        return
    with tempfile.TemporaryDirectory(
        prefix="remote-trainer-", ignore_cleanup_errors=True
    ) as folder:
        yield folder
