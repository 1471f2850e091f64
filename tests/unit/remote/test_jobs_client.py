"""The Jobs API as a small server of our own answers it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.errors import UserInputError
from remote_trainer.mirror import Mirror
from remote_trainer.remote.jobs import (
    ConnectionLostError,
    Job,
    JobsClient,
    RemoteError,
    parse_address,
)
from remote_trainer.remote.submit import find_job, follow_logs, stop
from remote_trainer.run_dir import RunDir

TOKEN = "a-token"
ROOT = Path(__file__).parents[3]


class Dashboard(HTTPServer):
    """One job, which runs for three questions."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.left = 3
        self.agents_after = 0
        """Submissions that come before the process that starts jobs is there."""
        self.metadata = {"remote_trainer": "0", "output_dir": "/runs/a"}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def job(self) -> dict[str, Any]:
        self.left -= 1
        status = "RUNNING" if self.left > 0 else "STOPPED"
        return {"submission_id": "a", "status": status, "message": "m", "metadata": self.metadata}


class Answers(BaseHTTPRequestHandler):
    server: Dashboard

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path))
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"] or 0)))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._send(401, "no token")
        elif self.path == "/api/jobs/a/logs":
            self._send(200, json.dumps({"logs": "xyz"[: 3 - max(0, self.server.left)]}))
        elif (
            self.path in ("/api/jobs/a", "/api/jobs/a/stop") or "/api/jobs/supervised-" in self.path
        ):
            self._send(200, json.dumps(self.server.job()))
        elif self.command == "POST" and self.path == "/api/jobs/" and self.server.agents_after:
            self.server.agents_after -= 1
            self._send(500, "No available agent to submit job, please try again later.")
        elif self.path == "/api/jobs/":
            self._send(200, json.dumps([self.server.job()]))
        elif self.path.startswith("/api/packages/"):
            self._send(200, "")
        elif self.path == "/api/jobs/broken":
            self._send(500, "Traceback\nValueError: broken")
        else:
            self._send(404, "none")

    do_GET = do_POST = do_PUT = _answer

    def _send(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    with Dashboard() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_job_is_sent_with_the_token(dashboard: Dashboard) -> None:
    client = JobsClient(dashboard.address, TOKEN)
    assert client.upload("p.zip", b"content") == "gcs://p.zip"
    client.submit("a", "run", {"working_dir": "gcs://p.zip"}, {"k": "v"})
    assert dashboard.asked == [("PUT", "/api/packages/gcs/p.zip"), ("POST", "/api/jobs/")]
    assert dashboard.bodies[0] == b"content"
    assert json.loads(dashboard.bodies[1]) == {
        "submission_id": "a",
        "entrypoint": "run",
        "runtime_env": {"working_dir": "gcs://p.zip"},
        "metadata": {"k": "v"},
    }


def test_a_cluster_that_takes_no_jobs_yet_is_asked_again(
    dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("remote_trainer.remote.jobs.time.sleep", waits.append)
    client = JobsClient(dashboard.address, TOKEN)
    dashboard.agents_after = 2
    client.submit("a", "run", {}, {})
    assert (len(dashboard.asked), waits) == (3, [1, 1])
    monkeypatch.setattr("remote_trainer.remote.jobs.START_SECONDS", -1)
    dashboard.agents_after = 1
    with pytest.raises(RemoteError, match="No available agent to submit job"):
        client.submit("a", "run", {}, {})
    assert len(waits) == 2


def test_logs_are_followed_to_the_end_and_shown_once(dashboard: Dashboard) -> None:
    client = JobsClient(dashboard.address, TOKEN)
    shown = list(follow_logs(client, find_job(client, "a").id, sleep=lambda seconds: None))
    assert "".join(shown) == "xyz"


class Unreachable(JobsClient):
    """Nobody answers the first so many questions about a job."""

    def __init__(self, address: str, failures: int) -> None:
        super().__init__(address, TOKEN)
        self.failures = failures

    def job(self, job_id: str) -> Job:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionLostError("nobody answers")
        return super().job(job_id)


def test_a_lost_connection_is_tried_again(dashboard: Dashboard) -> None:
    slept: list[float] = []
    shown = list(follow_logs(Unreachable(dashboard.address, 5), "a", sleep=slept.append))
    assert "".join(shown) == "xyz"
    assert slept[:5] == [2.0] * 5
    assert stop(Unreachable(dashboard.address, 5), "a", sleep=slept.append).status == "STOPPED"


def test_a_connection_that_stays_lost_is_an_error(dashboard: Dashboard) -> None:
    slept: list[float] = []
    with pytest.raises(ConnectionLostError, match="nobody answers"):
        list(follow_logs(Unreachable(dashboard.address, 1000), "a", sleep=slept.append))
    assert sum(slept) == 300
    with pytest.raises(ConnectionLostError, match="nobody answers"):
        stop(Unreachable(dashboard.address, 1000), "a", sleep=slept.append)
    assert sum(slept) == 600


def test_stop_waits_for_the_end(dashboard: Dashboard) -> None:
    job = stop(JobsClient(dashboard.address, TOKEN), "a", sleep=lambda seconds: None)
    assert job.status == "STOPPED"
    assert dashboard.asked.count(("POST", "/api/jobs/a/stop")) == 1


@pytest.mark.parametrize(
    ("token", "text"), [(None, "asks for a token"), ("other", "refuses this token")]
)
def test_a_refused_token_is_a_mistake_of_the_user(
    dashboard: Dashboard, token: str | None, text: str
) -> None:
    with pytest.raises(UserInputError, match=text):
        JobsClient(dashboard.address, token).jobs()


def test_other_answers_are_told(dashboard: Dashboard) -> None:
    client = JobsClient(dashboard.address, TOKEN)
    with pytest.raises(UserInputError, match="no such job"):
        client.job("missing/../x")
    assert dashboard.asked[-1][1] == "/api/jobs/missing%2F..%2Fx"
    with pytest.raises(RemoteError, match="answered 500: ValueError: broken"):
        client.job("broken")


def test_nobody_answers() -> None:
    with pytest.raises(ConnectionLostError, match="does not answer"):
        JobsClient("http://127.0.0.1:1", None).jobs()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("box:8265", "http://box:8265"),
        ("https://box/", "https://box"),
        ("http://[::1]:8265/x?y", "http://[::1]:8265"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["ray://box:10001", "http://", "http://u:p@box", "http://box:x"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(UserInputError, match=r"write http://HOST:8265"):
        parse_address(text)


def test_a_token_in_clear_text_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    JobsClient("http://127.0.0.1:8265", TOKEN)
    JobsClient("https://box:8265", TOKEN)
    assert not caplog.records
    JobsClient("http://box:8265", TOKEN)
    assert "is not encrypted" in caplog.text
    assert TOKEN not in caplog.text.replace("an SSH", "")


MISSING = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors", "ray")
WITHOUT = f"""
import sys
sys.modules.update(dict.fromkeys({MISSING}))  # an import of these fails, as if not installed
from remote_trainer.cli import main
sys.exit(main())
"""


def light(dashboard: Dashboard, *words: str, code: int = 0) -> str:
    """Output of a command in a process that can import neither torch nor Ray."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words, "--address", dashboard.address],
        env={**os.environ, "RAY_AUTH_TOKEN": TOKEN},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, ""), done.stderr
    return done.stdout


def test_a_client_needs_neither_torch_nor_ray(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.left = 1000
    submitted = light(dashboard, "submit", "configs/supervised.yaml", "--json")
    assert json.loads(submitted)["status"] == "RUNNING"
    assert json.loads(dashboard.bodies[1])["entrypoint"].startswith("exec python -m remote_trainer")
    assert "a  RUNNING  m" in light(dashboard, "status", "a")
    dashboard.left = 3
    followed = light(dashboard, "logs", "a", "--follow", code=1)  # it did not succeed
    assert followed == "xyza  STOPPED  m\n"

    run = RunDir(tmp_path / "there" / "a")
    run.root.mkdir(parents=True)
    run.metrics.write_text("{}\n")
    Mirror(str(tmp_path / "storage"), run).save()
    dashboard.metadata |= {"output_dir": str(run.root), "storage": str(tmp_path / "storage")}
    target = tmp_path / "here"
    assert "1 file brought, all verified" in light(dashboard, "fetch", "a", "--output", str(target))
    assert RunDir(target).metrics.read_text() == "{}\n"
    assert "a  STOPPED  m" in light(dashboard, "stop", "a")


def test_the_blocked_packages_are_missing() -> None:
    code = WITHOUT.replace("remote_trainer.cli", "torch")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert b"ModuleNotFoundError: import of torch halted" in done.stderr
