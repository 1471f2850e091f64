"""Commands for ssh, whose place a script takes."""

import os
import subprocess
from pathlib import Path

import pytest

from remote_trainer.errors import UserInputError
from remote_trainer.remote.jobs import RemoteError
from remote_trainer.remote.ssh import UP, Machine, up

SSH = """#!/bin/sh
printf '%s\\n' "$@" > "$SEEN"
for last; do :; done
exec sh -c "$last"
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Arguments of the last call of an ssh that runs the command here."""
    script = tmp_path / "bin" / "ssh"
    script.parent.mkdir()
    script.write_text(SSH)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    return tmp_path / "seen"


def test_host_and_port_reach_ssh(seen: Path) -> None:
    assert Machine.parse("user@box:2222").run("cat", b"sent") == b"sent"
    assert seen.read_text().splitlines()[-4:] == ["-p", "2222", "user@box", "cat"]


@pytest.mark.parametrize("text", ["-oProxyCommand=x", "a b", "user@-x", "", "box:port", "a;b"])
def test_what_is_no_machine_never_reaches_ssh(text: str) -> None:
    with pytest.raises(UserInputError, match="is no machine; write user@machine"):
        Machine.parse(text)


def test_a_failure_says_what_the_machine_said(seen: Path) -> None:
    with pytest.raises(RemoteError, match=r"^box: no such thing$"):
        Machine.parse("box").run("echo no such thing >&2; exit 2")
    with pytest.raises(RemoteError, match=r"^ssh cannot reach box: .*works without a password"):
        Machine.parse("box").run("exit 255")


def test_a_file_is_read_from_the_middle(seen: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "file").write_bytes(b"0123456789")
    with Machine.parse("box").reading("tail -c +5 ~/file") as pieces:
        assert b"".join(pieces) == b"456789"


def test_up_makes_a_token_for_the_user_alone_and_listens_on_the_loopback(
    seen: Path, tmp_path: Path
) -> None:
    venv = tmp_path / "home" / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "ray").write_text('#!/bin/sh\necho "$RAY_AUTH_MODE $*" > "$HOME/called"\n')
    real = subprocess.check_output(["sh", "-c", "command -v python3"], text=True).strip()
    (venv / "python").write_text(
        f'#!/bin/sh\ncase "$2" in "import ray"*) exit 0;; esac\nexec {real} "$@"\n'
    )
    for script in venv.iterdir():
        script.chmod(0o755)
    machine = Machine.parse("box")
    up(machine, "~/venv")
    token = tmp_path / "home" / ".ray" / "auth_token"
    first = token.read_text()
    assert len(first) == 64
    assert token.stat().st_mode & 0o777 == 0o600
    called = (tmp_path / "home" / "called").read_text()
    assert called.startswith("token start --head --node-ip-address=127.0.0.1 ")
    assert "--dashboard-host=127.0.0.1 --dashboard-port=8265" in called
    up(machine, "~/venv")
    assert machine.token() == token.read_text() == first


def test_up_says_what_the_machine_lacks(seen: Path, tmp_path: Path) -> None:
    venv = tmp_path / "home" / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text("#!/bin/sh\nexit 1\n")
    (venv / "python").chmod(0o755)
    with pytest.raises(RemoteError, match=r"lacks packages .*venv/bin/python\); install"):
        up(Machine.parse("box"), "~/venv")


def test_no_token_stands_in_a_command() -> None:
    assert "RAY_AUTH_TOKEN=" not in UP
