"""Another machine through the system's ssh, which knows the user's keys, config and jump hosts."""

import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from remote_trainer.errors import UserInputError
from remote_trainer.remote.jobs import RemoteError

DASHBOARD_PORT = 8265
READY_SECONDS = 30.0
OPTIONS = ("-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ConnectTimeout=20")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9._-]*(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Machine:
    """``user@machine`` or a name of the user's ssh config."""

    host: str
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, options: Sequence[str] = ()) -> "Machine":
        """``[user@]machine[:port]``; raises UserInputError."""
        if not _HOST.fullmatch(text):
            raise UserInputError.at("--host", f"{text!r} is no machine; write user@machine")
        host, _, port = text.partition(":")
        return cls(host, (*options, *(("-p", port) if port else ())))

    def run(self, command: str, stdin: bytes = b"") -> bytes:
        """Standard output of a shell command there; raises RemoteError with what it printed."""
        done = subprocess.run(self._ssh(command), input=stdin, capture_output=True, check=False)
        if done.returncode != 0:
            raise RemoteError(_why(self.host, done.returncode, done.stderr))
        return done.stdout

    @contextmanager
    def reading(self, command: str) -> Iterator[Iterator[bytes]]:
        """Standard output of a shell command there, in pieces."""
        with subprocess.Popen(
            self._ssh(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None, "it was asked for"
            yield iter(lambda: process.stdout.read(1 << 20), b"")  # type: ignore[union-attr]
        if process.returncode != 0:
            raise RemoteError(_why(self.host, process.returncode, b""))

    @contextmanager
    def tunnel(self, port: int = DASHBOARD_PORT) -> Iterator[str]:
        """The address of this machine's end of a tunnel to a port of the other one's loopback."""
        own = _free_port()
        forward = [
            "-N",
            "-o",
            "ExitOnForwardFailure=yes",
            "-L",
            f"127.0.0.1:{own}:127.0.0.1:{port}",
        ]
        command = ["ssh", *OPTIONS, *self.options, *forward, self.host]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _wait_for(own, process, self.host)
            yield f"http://127.0.0.1:{own}"
        finally:
            process.terminate()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    def token(self) -> str:
        """The token of the cluster there."""
        return self.run('cat "${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}"').decode().strip()

    def _ssh(self, command: str) -> list[str]:
        return ["ssh", *OPTIONS, *self.options, self.host, command]


UP = """
set -eu
umask 077
{path}
python -c 'import ray, torch, trl' || {{ echo "python: $(command -v python)" >&2; exit 3; }}
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
mkdir -p "$HOME/.ray"
token="$HOME/.ray/auth_token"
[ -s "$token" ] || python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token"
chmod 600 "$token"
exec ray start --head --node-ip-address=127.0.0.1 --port={gcs} \
--dashboard-host=127.0.0.1 --dashboard-port={port} --dashboard-agent-listen-port={agent} \
--disable-usage-stats </dev/null >&2
"""
"""Everything listens on the loopback only; without RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, Ray would
replace 127.0.0.1 by the address that other machines reach. With Ray's own port for the agent, no
job could be submitted where another Ray runs, such as that of `train --workers`."""


def up(machine: Machine, folder: str | None = None, port: int = DASHBOARD_PORT) -> None:
    """Start a token-protected Ray on the machine alone; ``folder``: with ``bin/python`` that has
    the extras train and ray."""
    script = UP.format(path=_path(folder), port=port, agent=port - 1, gcs=port - 1886)
    machine.run("sh -s", script.encode())


def down(machine: Machine, folder: str | None = None) -> None:
    """Stop Ray there, with all its jobs."""
    machine.run("sh -s", f"set -eu\n{_path(folder)}\nexec ray stop >&2 </dev/null\n".encode())


def _path(folder: str | None) -> str:
    if folder is None:
        return ":"
    given = shlex.quote(folder.removeprefix("~/"))
    return f"PATH={'$HOME/' if folder.startswith('~/') else ''}{given}/bin:$PATH; export PATH"


def _why(host: str, code: int, stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    said = "; ".join(lines[-3:]) or f"exit code {code}"
    if code == 255:
        return f"ssh cannot reach {host}: {said}. Check that `ssh {host}` works without a password"
    if code == 3 and any(line.startswith("python:") for line in lines):
        return (
            f"{host} lacks packages for training ({said}); install remote-trainer[train,ray] there "
            "and name its environment with --venv"
        )
    return f"{host}: {said}"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]", host: str) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            stderr = process.stderr.read() if process.stderr else b""
            raise RemoteError(_why(host, process.returncode, stderr))
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RemoteError(f"the tunnel to {host} was not ready after {READY_SECONDS:.0f} s")
