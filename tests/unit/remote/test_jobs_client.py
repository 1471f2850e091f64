"""The Jobs API as a small server of our own answers it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from remote_trainer.errors import UserInputError
from remote_trainer.remote.jobs import ConnectionLostError, JobsClient, RemoteError, parse_address
from remote_trainer.remote.submit import find_job, follow_logs, stop

TOKEN = "a-token"


class Dashboard(HTTPServer):
    """One job, which runs for three questions."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[bytes] = []
        self.left = 3

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def job(self) -> dict[str, Any]:
        self.left -= 1
        status = "RUNNING" if self.left > 0 else "STOPPED"
        metadata = {"remote_trainer": "0", "output_dir": "/runs/a"}
        return {"submission_id": "a", "status": status, "message": "m", "metadata": metadata}


class Answers(BaseHTTPRequestHandler):
    server: Dashboard

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path))
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"] or 0)))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._send(401, "no token")
        elif self.path == "/api/jobs/a/logs":
            self._send(200, json.dumps({"logs": "xyz"[: 3 - max(0, self.server.left)]}))
        elif self.path in ("/api/jobs/a", "/api/jobs/a/stop"):
            self._send(200, json.dumps(self.server.job()))
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


def test_logs_are_followed_to_the_end_and_shown_once(dashboard: Dashboard) -> None:
    client = JobsClient(dashboard.address, TOKEN)
    shown = list(follow_logs(client, find_job(client, "a").id, sleep=lambda seconds: None))
    assert "".join(shown) == "xyz"


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
