"""Every command without a terminal, colour, width or network: help, and a user's mistake."""

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from remote_trainer.cli.app import COMMANDS, app, main
from remote_trainer.errors import UserInputError

BARE = {"COLUMNS": "40", "TERM": "dumb", "NO_COLOR": "1"}
MISTAKES = {
    "init": ["--from", "nothing.jsonl", "new"],
    "check": ["nothing.yaml"],
    "train": ["nothing.yaml", "--quiet"],
    "submit": ["nothing.yaml", "--host", "user@machine"],
    "status": [],
    "logs": ["job"],
    "stop": ["job"],
    "fetch": ["job"],
    "remote up": ["-oProxyCommand=x"],
    "remote down": ["-oProxyCommand=x"],
    "score": ["nothing.yaml", "--input", "nothing", "--output", "rewards.jsonl"],
    "eval": ["nothing", "--data", "nothing.jsonl"],
    "chat": ["./nothing"],
    "export": ["nothing"],
    "report": ["nothing"],
    "ui": ["nothing"],
    "rewards": ["nothing"],
    "doctor": ["nothing.yaml"],
}
"""Command -> arguments that name what does not exist."""
WITHOUT_INPUT = {"schema"}


@pytest.fixture(autouse=True)
def _bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and every connection is an error."""

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a connection was opened")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name, value in BARE.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.called))
def test_help(command: Any) -> None:
    done = CliRunner().invoke(app, [*command.called.split(), "--help"], env=BARE)
    assert done.exit_code == 0
    assert "\x1b" not in done.output
    words = "".join(done.output.split())  # a narrow terminal breaks the lines
    for line in command.example.splitlines():
        assert "".join(f"remote-trainer {command.called} {line}".split()) in words


def test_the_table_of_mistakes_has_every_command() -> None:
    assert {command.called for command in COMMANDS} == set(MISTAKES) | WITHOUT_INPUT


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["remote-trainer", *name.split(), *MISTAKES[name]])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == UserInputError.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert "\x1b" not in said.err
    assert "Traceback" not in said.err
    assert said.err.strip()
    assert list(Path().iterdir()) == []
