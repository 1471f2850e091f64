"""A rented machine that is this one: an sshd on the loopback, with a key that is thrown away."""

import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_jobs import SECONDS, config_for, free_ports, kill_all, open_to_others, processes_of

from remote_trainer.config import load_config
from remote_trainer.remote import packing
from remote_trainer.remote.jobs import JobsClient
from remote_trainer.remote.ssh import Machine
from remote_trainer.remote.submit import submit
from remote_trainer.run_dir import RunDir, file_sha256, read_jsonl

pytest.importorskip("ray", reason="the extra ray is not installed")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="sshd is not installed"),
    pytest.mark.skipif(
        os.geteuid() == 0 and not any(user.pw_name == "sshd" for user in pwd.getpwall()),
        reason="sshd as root needs the user sshd",
    ),
]

UNSHARE = shutil.which("unshare")
OWN_PROCESSES = (
    [UNSHARE, "--pid", "--fork", "--mount-proc", "--kill-child"]
    if UNSHARE and os.geteuid() == 0
    else []
)
"""`ray stop` ends every Ray that it sees; `remote down` is tested where it sees only this one."""

SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME={folder}/home OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
"""
CLIENT = """
Host *
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking accept-new
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """``user@127.0.0.1:port``; its home is empty, and its Ray is ended afterwards."""
    [port] = free_ports(1)
    (tmp_path / "home").mkdir()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # Debian's service makes it at its start
    for name in ("key", "host_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    (tmp_path / "sshd_config").write_text(SERVER.format(port=port, folder=tmp_path))
    (tmp_path / "ssh_config").write_text(CLIENT.format(folder=tmp_path))
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/ssh_config "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    with (tmp_path / "sshd.log").open("w") as log:
        server = subprocess.Popen(
            [*OWN_PROCESSES, str(SSHD), "-D", "-e", "-f", str(tmp_path / "sshd_config")],
            stdout=log, stderr=log,
        )  # fmt: skip
    name = f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1:{port}"
    try:
        _wait_for(name, tmp_path / "sshd.log")
        yield name
    finally:
        kill_all(tmp_path / "home")
        server.kill()
        server.wait(30)


def _wait_for(name: str, log: Path) -> None:
    until = time.monotonic() + SECONDS
    host, _, port = name.partition(":")
    while subprocess.run(["ssh", "-p", port, host, "true"], check=False).returncode != 0:
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


def remote(*words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "remote_trainer.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_up_submit_logs_fetch_and_down(machine: str, llama_folder: Path, tmp_path: Path) -> None:
    [port] = free_ports(1)
    at = ["--host", machine, "--port", str(port)]
    venv = str(Path(sys.executable).parent.parent)
    assert "Ray runs" in remote("remote", "up", machine, "--venv", venv, "--port", str(port))
    token = tmp_path / "home" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert open_to_others(processes_of(tmp_path / "home")) == []

    config = config_for(tmp_path, llama_folder, max_steps=2)
    there = Machine.parse(machine)
    with pytest.MonkeyPatch.context() as patch, there.tunnel(port) as end:
        patch.setattr(packing, "_of_model", lambda config: [])
        job = submit(JobsClient(end, there.token()), config, load_config(config, []), []).id
    assert "update 2/2" in remote("logs", "--follow", *at)
    assert f"{job}  SUCCEEDED" in remote("status", *at)
    target = tmp_path / "fetched"
    assert "all verified" in remote("fetch", *at, "--output", str(target))
    original = tmp_path / "home" / "remote_trainer_runs" / job
    assert [line["step"] for line in read_jsonl(RunDir(target).metrics)] == [1, 2]
    weights = "adapter/adapter_model.safetensors"
    assert file_sha256(target / weights) == file_sha256(original / weights)
    assert "0 files brought" in remote("fetch", *at, "--output", str(target))
    for path in [*target.rglob("*"), *(original.rglob("*"))]:
        assert not path.is_file() or token.read_bytes() not in path.read_bytes()
    if OWN_PROCESSES:
        assert "Ray is stopped" in remote("remote", "down", machine, "--venv", venv)
        assert "does not answer" in remote("status", *at, code=1)
