"""The local page: what it shows of run folders, and what it refuses."""

import hashlib
import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from remote_trainer.cli.app import app
from remote_trainer.errors import UserInputError
from remote_trainer.paths import FolderLock, is_written
from remote_trainer.run_dir import RunDir, append_jsonl
from remote_trainer.ui.answers import answer_to
from remote_trainer.ui.runs import charts_of, find_runs, summary_of
from remote_trainer.ui.server import LOOPBACK, RunsServer

EVALUATION = {"rows": 4, "before": None, "after": None}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def make_run(root: Path, name: str, steps: int = 3, done: bool = False) -> RunDir:
    run = RunDir(root / name)
    run.root.mkdir(parents=True)
    run.resolved_config.write_text("output_dir: run\n")
    for step in range(1, steps + 1):
        append_jsonl(run.metrics, {"step": step, "reward": step / 4, "kl": None})
    if done:
        verdict = {"word": "better", "text": "Better: by 20 points.", "change": 0.2}
        run.eval.write_text(
            json.dumps({"verdict": verdict, "rows": 4, "before": None, "after": None})
        )
        run.report.write_text("old")
        run.adapter.mkdir()
    return run


def save_completion(run: RunDir, text: str, prompt: Any = "Capital?") -> None:
    row = {"step": 1, "prompt": prompt, "completion": text, "answer": None, "reward": 0.5}
    append_jsonl(run.completions_file(1), {**row, "rewards": {}, "tokens": 3, "ended": True})


def contents(folder: Path) -> dict[str, str]:
    """Path -> hash and times of change of every file and folder."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {
        str(path): f"{path.stat().st_mtime_ns} {path.stat().st_ctime_ns} "
        + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in paths
    }


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunsServer]:
    """It serves ``runs`` in the temporary folder, which is empty."""
    (tmp_path / "runs").mkdir()
    with RunsServer(tmp_path / "runs", 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: RunsServer, address: str, method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    """(status, body, headers); the address is sent as it is."""
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=10)
    own = {"Host": f"{LOOPBACK}:{server.server_port}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    connection.putrequest(method, address, skip_host=True)
    for name, value in own.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body, dict(response.getheaders())


def test_it_listens_on_the_loopback_address_only(server: RunsServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


def test_a_run_appears_while_it_serves(server: RunsServer) -> None:
    status, body, _ = ask(server, "/")
    assert (status, "No runs yet" in body) == (200, True)
    make_run(server.root, "first", steps=2)
    body = ask(server, "/")[1]
    assert '<a href="/run/first">first</a>' in body
    assert "<td>interrupted</td>" in body
    assert "<td>2</td>" in body
    assert ask(server, "/run/first")[0] == 200


def test_curves_follow_the_metrics(server: RunsServer) -> None:
    run = make_run(server.root, "first", steps=2)
    (chart,) = json.loads(ask(server, "/charts/first")[1])
    line = {"name": "Reward", "x": [1, 2], "y": [0.25, 0.5]}
    assert (chart["title"], chart["lines"]) == ("Reward", [line])
    tag = ask(server, "/charts/first")[2]["ETag"]
    assert ask(server, "/charts/first", If_None_Match=tag)[:2] == (304, "")
    append_jsonl(run.metrics, {"step": 3, "reward": 1.0})
    status, body, _ = ask(server, "/charts/first", If_None_Match=tag)
    assert (status, json.loads(body)[0]["lines"][0]["y"]) == (200, [0.25, 0.5, 1.0])


def test_reports_and_comparisons_are_made_on_request(server: RunsServer) -> None:
    make_run(server.root, "a b", done=True)
    make_run(server.root, "ü&c", done=True)
    status, body, headers = ask(server, "/report/a%20b")
    assert (status, "Training report: a b" in body) == (200, True)
    assert headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'non")
    status, body, _ = ask(server, "/compare?run=a+b&run=%C3%BC%26c&run=no")
    assert (status, "<h2>Comparison</h2>" in body) == (200, True)
    assert ask(server, "/compare?run=a+b&run=a+b")[0] == 400
    assert 'href="/report/%C3%BC%26c"' in ask(server, "/")[1]


def test_no_request_changes_anything_in_a_run(server: RunsServer) -> None:
    run = make_run(server.root, "first", done=True)
    save_completion(run, "Paris")
    with FolderLock(make_run(server.root, "second").root):
        before = contents(server.root)
        for address in ("/", "/run/first", "/run/second", "/report/second", "/charts/first"):
            assert ask(server, address)[0] == 200
        assert ask(server, "/compare?run=first&run=second")[0] == 200
        assert contents(server.root) == before
    assert ask(server, "/", "POST")[0] == 501
    assert ask(server, "/run/first", "DELETE")[0] == 501


def test_a_hostile_run_is_inert(server: RunsServer) -> None:
    run = make_run(server.root, 'x"><b onclick=alert(1)>', done=True)
    save_completion(run, HOSTILE, [{"role": "user", "content": HOSTILE}])
    verdict = {"word": HOSTILE, "text": HOSTILE}
    run.eval.write_text(json.dumps({**EVALUATION, "verdict": verdict}))
    run.guard.write_text(json.dumps({"stopped": True, "text": HOSTILE}))
    address = "x%22%3E%3Cb%20onclick%3Dalert%281%29%3E"
    for path in ("/", f"/run/{address}"):
        status, body, headers = ask(server, path)
        assert status == 200
        assert "<script>" not in body
        assert "<img" not in body
        assert "<b onclick" not in body
        assert "&lt;script&gt;alert(1)" in body
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self' 'unsafe-eval';" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert HOSTILE not in ask(server, f"/report/{address}")[1]


@pytest.mark.parametrize("content", ["{", "[]", '"x"', '{"verdict": [], "text": 3}', "\x00\n"])
def test_damaged_files_stop_neither_the_list_nor_the_server(
    content: str, server: RunsServer
) -> None:
    run = make_run(server.root, "first")
    for file in (run.eval, run.guard, run.root / ".lock"):
        file.write_text(content)
    run.metrics.write_text(f"{content}\n[]\n")
    assert ask(server, "/")[0] == 200
    assert ask(server, "/run/first")[0] == 200
    status, body, _ = ask(server, "/charts/first")
    assert (status, "A file of the run cannot be read" in body) == (500, True)
    save_completion(run, "x", prompt=[{}])
    assert ask(server, "/run/first")[0] == 500
    assert ask(server, "/")[0] == 200


@pytest.mark.parametrize(
    "address",
    [
        "/run/../secret", "/run/..%2fsecret", "/run/%2e%2e", "/report/..", "/charts//etc/passwd",
        "/static/../answers.py", "/static/base.html.j2", "/report/secret", "/run/.hidden",
        "/run/first/", "/run/first/metrics.jsonl", "/run", "/run/first%00",
        "/favicon.ico",
    ],
)  # fmt: skip
def test_an_address_cannot_leave_the_list(address: str, server: RunsServer) -> None:
    make_run(server.root, "first")
    make_run(server.root, ".hidden")
    make_run(server.root.parent, "secret")
    status, body, _ = ask(server, address)
    assert (status, "There is no such page or run." in body) == (404, True)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", ""])
def test_another_host_is_refused(host: str, server: RunsServer) -> None:
    make_run(server.root, "first")
    status, body, _ = ask(server, "/", Host=host.format(port=server.server_port))
    assert (status, "first" in body) == (403, False)
    assert ask(server, "/", Host=f"localhost:{server.server_port}")[0] == 200


def test_static_files_come_from_the_package(server: RunsServer) -> None:
    status, body, headers = ask(server, "/static/plotly.js")
    assert (status, "plotly.js v" in body[:500]) == (200, True)
    assert headers["Content-Type"].startswith("text/javascript")
    assert "setTimeout(resolve, POLL_MS)" in ask(server, "/static/page.js")[1]
    for name in ("style.css", "ui.css", "charts.js"):
        assert "http" not in ask(server, f"/static/{name}")[1]


def test_the_newest_completions_are_shown(server: RunsServer) -> None:
    run = make_run(server.root, "first")
    assert "No completions saved yet." in ask(server, "/run/first")[1]
    save_completion(run, "It is Paris.", [{"role": "user", "content": "Capital?"}])
    body = ask(server, "/run/first")[1]
    texts = re.findall(r'<div class="text" dir="auto">(.*?)</div>', body)
    assert texts == ["user: Capital?", "It is Paris."]
    assert "<td>0.5</td>" in body


def test_a_browser_that_leaves_early_is_no_error(
    server: RunsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for error in (ConnectionResetError(), BrokenPipeError(), RuntimeError("real")):
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))
        assert ("real" in capsys.readouterr().err) is isinstance(error, RuntimeError)


def test_states(tmp_path: Path) -> None:
    run = make_run(tmp_path, "first", done=True)
    assert summary_of("first", run).state == "finished"
    assert summary_of("first", run).verdict == "better"
    run.guard.write_text('{"stopped": true, "text": "It repeats itself."}')
    assert summary_of("first", run).state == "stopped by the guard"
    assert summary_of("first", run).guard_text == "It repeats itself."
    with FolderLock(run.root):
        assert summary_of("first", run).state == "running"
    lock = {"pid": 2**22 + 1, "host": "elsewhere", "command": "train", "since": "now"}
    (run.root / ".lock").write_text(json.dumps(lock))
    assert is_written(run.root)
    with FolderLock(make_run(tmp_path, "other").root) as held:
        own = json.loads((held.folder / ".lock").read_text())
    for pid in (2**22 + 1, -1, "1", None, 2**80):  # beyond the largest pid of Linux
        (run.root / ".lock").write_text(json.dumps({**own, "pid": pid}))
        assert not is_written(run.root)


def test_the_last_step_is_read_from_the_end(tmp_path: Path) -> None:
    run = make_run(tmp_path, "first", steps=0)
    assert summary_of("first", run).step is None
    for step in range(1, 400):
        append_jsonl(run.metrics, {"step": step, "reward": None, "text": "x" * 400})
    with run.metrics.open("a") as file:
        file.write('{"step": 400')
    assert summary_of("first", run).step == 399
    assert charts_of(run) == []


def test_the_folder_may_be_a_run_itself(tmp_path: Path) -> None:
    make_run(tmp_path, "first")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").touch()
    assert list(find_runs(tmp_path)) == ["first"]
    assert list(find_runs(tmp_path / "first")) == ["first"]
    assert answer_to("/run/first", tmp_path / "first").status == 200


def test_a_taken_port_is_exit_2_only_if_it_was_asked_for(
    server: RunsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserInputError, match=r"--port: \d+: Address already in use; write another"):
        RunsServer(server.root, server.server_port)
    monkeypatch.setattr("remote_trainer.ui.server.USUAL_PORT", server.server_port)
    with RunsServer(server.root) as other:
        assert other.server_port not in (0, server.server_port)
    with pytest.raises(UserInputError, match="no such folder; write the folder of your runs"):
        RunsServer(server.root / "no")


@pytest.mark.parametrize(("display", "opened"), [("", False), (":0", True)])
def test_the_command_opens_a_browser_only_where_there_is_a_display(
    display: str, opened: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: RunsServer) -> None:
        raise KeyboardInterrupt

    seen: list[str] = []
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("webbrowser.open", seen.append)
    monkeypatch.setattr(RunsServer, "serve_forever", interrupted)
    done = CliRunner().invoke(app, ["ui", str(tmp_path), "--port", "0"])
    assert done.exit_code == 0
    assert done.output.startswith("http://127.0.0.1:")
    assert bool(seen) is opened
    CliRunner().invoke(app, ["ui", str(tmp_path), "--port", "0", "--no-browser"])
    assert len(seen) == opened
