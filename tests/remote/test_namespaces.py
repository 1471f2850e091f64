"""Two machines that are network namespaces of this one, and a link between them that is cut."""

import ast
import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_jobs import SECONDS, config_for
from test_workers import assert_whole

from remote_trainer.doctor.open_ports import RAY_PORTS
from remote_trainer.run_dir import RunDir, file_sha256, read_jsonl

pytest.importorskip("ray", reason="the extra ray is not installed")
IP = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def why_no_namespaces() -> str:
    """Root inside a container may lack the right to make them, or to link them."""
    if os.geteuid() != 0 or IP is None:
        return "network namespaces need root and `ip`"
    name = f"probe-{os.getpid()}"
    link = f"link add {LINK} type veth peer name {LINK}-peer".split()
    for command in (["netns", "add", name], ["-n", name, *link], ["netns", "del", name]):
        done = subprocess.run([IP, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"network namespaces cannot be made or linked here: {done.stderr.strip()}"
    return ""


LINK = "veth0"
WHY_NOT = why_no_namespaces()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WHY_NOT != "", reason=WHY_NOT)]

HEAD, OTHER = "10.231.0.1", "10.231.0.2"
DASHBOARD, CLUSTER, _ = RAY_PORTS
CUT_SECONDS = 10
CLIENT = """
import sys
sys.modules.update(torch=None, ray=None)  # neither can be imported here
from remote_trainer.remote import packing
packing._of_model = lambda config: []  # both machines have the same files, so the model is there
from remote_trainer.cli import main
sys.exit(main())
"""
OPEN_PORTS = "from remote_trainer.doctor.open_ports import open_ray_ports; print(open_ray_ports())"


def ip(*words: str) -> str:
    """The output of the system's ``ip``."""
    done = subprocess.run([str(IP), *words], capture_output=True, text=True, check=True)
    return done.stdout


@dataclass(frozen=True)
class Machine:
    """A network namespace with one end of the link."""

    name: str
    address: str
    folder: str
    """Of its Ray: in one they would remove each other's files. Sockets need a short name."""
    environment: dict[str, str]

    def start(self, log: Path, *command: str) -> "subprocess.Popen[bytes]":
        """A command there, which prints to ``log``."""
        with log.open("w") as told:
            return subprocess.Popen(
                self._command(*command), env=self.environment, stdout=told, stderr=told
            )

    def start_ray(self, log: Path, *words: str) -> "subprocess.Popen[bytes]":
        """Ray with one CPU; returns when it runs."""
        command = ["ray", "start", "--block", f"--node-ip-address={self.address}", "--num-cpus=1"]
        command += [f"--temp-dir={self.folder}", "--object-store-memory=80000000"]
        ray = self.start(log, *command, *words)
        until = time.monotonic() + SECONDS
        while "Ray runtime started" not in log.read_text():
            assert ray.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        return ray

    def output(self, *command: str, code: int = 0, **changes: str) -> str:
        """What a command there prints."""
        done = subprocess.run(
            self._command(*command),
            env={**self.environment, **changes},
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def pids(self) -> list[int]:
        return [int(pid) for pid in ip("netns", "pids", self.name).split()]

    def end(self) -> None:
        """Kill what runs there, and remove it."""
        for pid in self.pids():
            subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
        ip("netns", "del", self.name)

    def _command(self, *words: str) -> list[str]:
        return [str(IP), "netns", "exec", self.name, *words]


def python(code: str, *words: str) -> list[str]:
    """A command that runs code with this program at hand."""
    source = Path(__file__).parents[2] / "src"
    return ["env", f"PYTHONPATH={source}", sys.executable, "-c", code, *words]


def client(*words: str) -> list[str]:
    """A command of this program for the cluster."""
    return python(CLIENT, *words, "--address", f"http://{HEAD}:{DASHBOARD}")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, Machine]]:
    """The head of a cluster that asks for a token, and a machine that joined it."""
    common = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        # gloo would look up the host's name, which leads to the loopback.
        "GLOO_SOCKET_IFNAME": LINK,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    common.pop("PYTHONPATH", None)  # the job brings the program
    found = []
    for address in (HEAD, OTHER):
        name = f"rt{os.getpid()}-{address[-1]}"
        home = tmp_path_factory.mktemp(name)
        folder = tempfile.mkdtemp(prefix="rt-")
        found.append(Machine(name, address, folder, {**common, "HOME": str(home)}))
    started = []
    logs = tmp_path_factory.mktemp("ray")
    try:
        connect(*found)
        as_head = ["--head", f"--port={CLUSTER}", f"--dashboard-host={HEAD}"]
        started.append(found[0].start_ray(logs / "head", *as_head, "--disable-usage-stats"))
        started.append(found[1].start_ray(logs / "other", f"--address={HEAD}:{CLUSTER}"))
        yield found[0], found[1]
    finally:
        for machine in found:
            if machine.name in ip("netns"):
                machine.end()
            shutil.rmtree(machine.folder, ignore_errors=True)
        for process in started:
            process.wait(60)


def connect(head: Machine, other: Machine) -> None:
    """Make both namespaces and the link between them."""
    try:
        ip("netns", "add", head.name)
        ip("netns", "add", other.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
    ends = ["type", "veth", "peer", "name", LINK, "netns", other.name]
    ip("link", "add", LINK, "netns", head.name, *ends)
    for machine in (head, other):
        ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", LINK)
        for device in ("lo", LINK):
            ip("-n", machine.name, "link", "set", device, "up")


def updates_in(log: Path) -> int:
    """The number of the last update that is shown."""
    return max(map(int, re.findall(r"update (\d+)/", log.read_text())), default=0)


def workers_on(machine: Machine) -> int:
    found = 0
    for pid in machine.pids():
        with contextlib.suppress(OSError):  # it has ended
            found += b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def test_without_the_token_nothing_is_answered(machines: tuple[Machine, Machine]) -> None:
    _, other = machines
    told = other.output(*client("status"), code=2, RAY_AUTH_TOKEN="")
    assert "asks for a token" in told
    told = other.output(*client("status"), code=2, RAY_AUTH_TOKEN="0" * 64)
    assert "refuses this token" in told
    assert "no jobs" in other.output(*client("status"))


def test_open_ports_are_seen(machines: tuple[Machine, Machine]) -> None:
    """By what `doctor` asks, of a real Ray that listens on more than the loopback."""
    head, _ = machines
    found = ast.literal_eval(head.output(*python(OPEN_PORTS)))
    assert {CLUSTER, DASHBOARD} <= set(found)


def test_a_cut_link_does_not_lose_the_run(
    machines: tuple[Machine, Machine], llama_folder: Path, tmp_path: Path
) -> None:
    """Submitted from the other machine, a worker on each, followed, cut off, stopped, fetched."""
    head, other = machines
    config = config_for(tmp_path, llama_folder, max_steps=2000, save_steps=1000)
    storage = tmp_path / "storage"
    told = other.output(*client("submit", str(config), "--workers", "2", "--storage", str(storage)))
    assert "is not encrypted" in told
    [job] = set(re.findall(r"config-\d{8}-\d{6}-\w{4}", told))
    followed = tmp_path / "followed"
    following = other.start(followed, *client("logs", job, "--follow"))
    trains_until(3, followed, following)
    assert (workers_on(head), workers_on(other)) == (1, 1)
    ip("-n", other.name, "link", "set", LINK, "down")
    time.sleep(CUT_SECONDS)
    ip("-n", other.name, "link", "set", LINK, "up")
    trains_until(updates_in(followed) + 3, followed, following)
    assert f"{job}  STOPPED" in other.output(*client("stop", job))
    assert following.wait(SECONDS) == 1
    seen = followed.read_text()
    assert "stopped by a signal after update" in seen
    assert "attempt 2" not in seen

    target = tmp_path / "fetched"
    assert "all verified" in other.output(*client("fetch", job, "--output", str(target)))
    [checkpoint] = RunDir(target).complete_checkpoints()
    steps = [line["step"] for line in read_jsonl(RunDir(target).metrics)]
    assert steps == list(range(1, assert_whole(checkpoint)["step"] + 1))
    original = storage / job
    for file in original.rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            assert file_sha256(target / file.relative_to(original)) == file_sha256(file)


def trains_until(step: int, log: Path, following: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + SECONDS
    while updates_in(log) < step:
        assert following.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)
