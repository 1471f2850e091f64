"""A job of a local cluster that asks for a token: submitted, followed, stopped, fetched."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_many_processes import write_config

from remote_trainer.config import load_config
from remote_trainer.errors import UserInputError
from remote_trainer.remote import packing
from remote_trainer.remote.jobs import LOOPBACK, JobsClient, RemoteError
from remote_trainer.remote.submit import submit
from remote_trainer.remote.workers import ONE_MACHINE
from remote_trainer.run_dir import RunDir, file_sha256, read_jsonl

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.slow

SECONDS = 300
Cluster = tuple[str, dict[str, str]]


def free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


def processes_of(home: Path) -> list[int]:
    """Processes that were started with this home."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if f"HOME={home}\0".encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
    return found


def kill_all(home: Path) -> None:
    """End the processes of this home, and only these: `ray stop` would end those of other tests."""
    for pid in processes_of(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def open_to_others(pids: Iterable[int]) -> list[str]:
    """Where processes listen, beside the loopback."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in process.net_connections("inet"):
                address = each.laddr.ip.removeprefix("::ffff:")
                if each.status == psutil.CONN_LISTEN and address not in LOOPBACK:
                    found.append(f"{address} port {each.laddr.port}: {process.cmdline()[:4]}")
    return found


def wait_for_answer(client: JobsClient, head: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until the dashboard that ``head`` starts answers."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            client.jobs()
        except RemoteError:
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.5)
        else:
            return


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """(address, environment with the token) of a head that listens on the loopback only."""
    home = tmp_path_factory.mktemp("home")
    gcs, port, agent = free_ports(3)
    environment = {
        **os.environ,
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        **ONE_MACHINE,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    environment.pop("PYTHONPATH", None)  # the job brings the program
    command = ["ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    command += [f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    command += ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats"]
    # Two clusters of one machine would hand out the same ports to their workers and agents.
    command += [f"--dashboard-agent-listen-port={agent}"]
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    address, log = f"http://127.0.0.1:{port}", home / "ray.log"
    with log.open("w") as told:
        process = subprocess.Popen(command, env=environment, stdout=told, stderr=told)
    try:
        wait_for_answer(JobsClient(address, environment["RAY_AUTH_TOKEN"]), process, log)
        yield address, environment
    finally:
        kill_all(home)
        process.wait(60)


def remote(cluster: Cluster, *words: str, check: bool = True) -> str:
    """The output of a command for this cluster."""
    address, environment = cluster
    done = subprocess.run(
        [sys.executable, "-m", "remote_trainer.cli", *words, "--address", address],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def submitted(
    cluster: Cluster,
    config: Path,
    storage: Path,
    workers: int | None = None,
    on_done: str | None = None,
) -> str:
    """The id of a new job. Its model is here as well as there, so that nothing must be copied."""
    address, environment = cluster
    stored = [f"distributed.storage={storage}"]
    client = JobsClient(address, environment["RAY_AUTH_TOKEN"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_of_model", lambda config: [])
        return submit(client, config, load_config(config, stored), stored, workers, on_done).id


def config_for(folder: Path, model: Path, **training: Any) -> Path:
    """A config with a relative run folder, so that the job gets its own."""
    path = write_config(folder, model, gradient_accumulation_steps=1, **training)
    config = json.loads(path.read_text())
    config["output_dir"] = "run"
    path.write_text(json.dumps(config))
    return path


def test_without_a_token_nothing_is_answered(cluster: Cluster) -> None:
    with pytest.raises(UserInputError, match="asks for a token"):
        JobsClient(cluster[0], None).jobs()
    with pytest.raises(UserInputError, match="refuses this token"):
        JobsClient(cluster[0], "0" * 64).submit("x", "id", {}, {})


def test_a_run_comes_back_whole(cluster: Cluster, llama_folder: Path, tmp_path: Path) -> None:
    config, storage = config_for(tmp_path, llama_folder, max_steps=2), tmp_path / "storage"
    done = tmp_path / "done"
    refused = remote(cluster, "submit", str(config), check=False)
    assert "models are not sent" in refused
    then = f"echo $REMOTE_TRAINER_EXIT_CODE > {done}"
    job = submitted(cluster, config, storage, on_done=then)
    told = remote(cluster, "logs", job, "--follow")
    assert "update 2/2" in told
    assert done.read_text() == "0\n"
    assert "SUCCEEDED" in remote(cluster, "status", job)
    target = tmp_path / "fetched"
    assert "all verified" in remote(cluster, "fetch", job, "--output", str(target))
    folder = RunDir(target)
    assert [line["step"] for line in read_jsonl(folder.metrics)] == [1, 2]
    original = next(storage.iterdir())
    for file in original.rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            assert file_sha256(target / file.relative_to(original)) == file_sha256(file)
    assert "0 files brought" in remote(cluster, "fetch", job, "--output", str(target))


def test_a_stopped_run_has_written_its_checkpoint(
    cluster: Cluster, llama_folder: Path, tmp_path: Path
) -> None:
    config = config_for(tmp_path, llama_folder, max_steps=2000, save_steps=1000)
    storage = tmp_path / "storage"
    job = submitted(cluster, config, storage, workers=1)  # under Ray Train in the same cluster
    until = time.monotonic() + SECONDS
    while "update 3/" not in (told := remote(cluster, "logs", job)):
        assert "FAILED" not in remote(cluster, "status", job), told
        assert time.monotonic() < until, told
        time.sleep(1)
    assert "STOPPED" in remote(cluster, "stop", job)
    assert "stopped by a signal after update" in remote(cluster, "logs", job)
    remote(cluster, "fetch", job, "--output", str(tmp_path / "fetched"))
    folder = RunDir(tmp_path / "fetched")
    [checkpoint] = folder.complete_checkpoints()
    assert 3 <= folder.step_of(checkpoint) < 1000
