"""Uploading, against a fake of the hub's API: which calls are made, with which files.

What is not tested here: the real hub, its permissions, and large files (LFS).
"""

import contextlib
import json
import logging
import re
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from remote_trainer.cli import commands
from remote_trainer.errors import ExportError
from remote_trainer.export.hub import push


class FakeHub(BaseHTTPRequestHandler):
    """Answers as the hub does to the calls of an upload of small files."""

    calls: list[tuple[str, str]]
    committed: list[dict[str, Any]]
    created: list[dict[str, Any]]
    refuse = False

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.calls.append((self.path, self.headers.get("authorization", "")))
        host = f"http://{self.headers['Host']}"
        if self.refuse and self.path.endswith("/preupload/main"):
            self._answer({"error": "You do not have the rights"}, 403)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            type(self).created.append(asked)
            self._answer({"url": f"{host}/{asked.get('organization', 'me')}/{asked['name']}"})
        elif self.path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            answers = [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]
            self._answer({"files": answers})
        elif self.path.endswith("/commit/main"):
            self.committed += [json.loads(line) for line in body.splitlines()]
            self._answer({"commitUrl": f"{host}/me/model/commit/abc", "commitOid": "abc"})
        else:
            self._answer({"valid": True})

    def do_GET(self) -> None:
        self._answer({"siblings": [], "id": "me/model", "sha": "abc"})

    def _answer(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    class Hub(FakeHub):
        pass

    Hub.calls, Hub.committed, Hub.created = [], [], []
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint=address))
        yield Hub
        server.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("---\nlibrary_name: peft\n---\n# a model\n")
    (tmp_path / "proof.json").write_text("{}\n")
    return tmp_path


def test_a_folder_becomes_one_commit_of_a_private_repository(
    hub: type[FakeHub], folder: Path
) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/me/model", push(folder, "me/model"))
    paths = [path for path, _ in hub.calls]
    assert paths[0] == "/api/repos/create"
    assert sum(path == "/api/models/me/model/commit/main" for path in paths) == 1
    assert hub.created == [{"name": "model", "organization": "me", "visibility": "private"}]
    files = {e["value"]["path"] for e in hub.committed if e["key"] == "file"}
    assert files == {"README.md", "proof.json"}
    assert all(token == "Bearer hf_secret" for _, token in hub.calls)


def test_a_refusal_names_the_way_out_and_no_secret(
    hub: type[FakeHub], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "refuse", True)
    with pytest.raises(ExportError, match="hf auth login") as refused:
        push(folder, "me/model")
    assert "hf_secret" not in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_link_in_the_folder_is_not_followed(
    hub: type[FakeHub], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("home") / "id_rsa"
    secret.write_text("secret")
    (folder / "notes.txt").symlink_to(secret)
    with pytest.raises(ExportError, match=r"notes\.txt is a link, and only files of the export"):
        push(folder, "me/model")
    assert hub.calls == []


def test_a_name_that_is_none_is_refused(hub: type[FakeHub], folder: Path) -> None:
    with pytest.raises(ExportError, match="is not a valid repository name"):
        push(folder, "not a name/at all/x")
    assert hub.calls == []


def test_a_hub_that_cannot_be_reached_is_no_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: HfApi(endpoint="http://127.0.0.1:9"))
    with pytest.raises(ExportError, match="check the connection to the hub") as refused:
        push(folder, "me/model")
    assert "export itself is finished" in str(refused.value)


def test_a_token_that_no_header_can_hold_is_not_told(
    hub: type[FakeHub], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secr\u00e9t")
    with pytest.raises(ExportError, match="HF_TOKEN") as refused:
        push(folder, "me/model")
    told = "".join(traceback.format_exception(refused.value))
    assert "hf_sec" not in told
    assert hub.calls == []


@pytest.mark.parametrize("refuse", [False, True])
def test_the_token_is_in_no_log(
    refuse: bool,
    hub: type[FakeHub],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Everything that any library logs, at its most talkative."""
    monkeypatch.setattr(hub, "refuse", refuse)
    for name in ("huggingface_hub", "httpx", "httpcore", "httpx2", "httpcore2"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        caplog.set_level(logging.DEBUG, logger=name)
    with contextlib.suppress(ExportError):
        push(folder, "me/model")
    said = capfd.readouterr()
    assert "/api/repos/create" in caplog.text  # the logs were on
    assert "hf_secret" not in caplog.text + said.out + said.err
    assert all(token == "Bearer hf_secret" for _, token in hub.calls)


def proven(verdict: str) -> Any:
    """What export_trained returns, as far as the command looks at it."""
    numbers = dict.fromkeys(
        ("distance_mean", "distance_limit", "slope", "likeliest_agree", "greedy_agree"), 1.0
    )
    checks = {"log-probs": verdict != "FAIL"}
    return {"format": "lora", "verdict": verdict, "tokens": 3, "questions": 1, "checks": checks,
            **numbers}  # fmt: skip


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_uploads_what_was_proven_and_nothing_else(
    as_json: bool,
    hub: type[FakeHub],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def export(verdict: str) -> None:
        made = (folder, proven(verdict))
        monkeypatch.setattr("remote_trainer.pipeline.export.export_trained", lambda *_: made)
        commands.export(folder, push_to_hub="me/model", as_json=as_json)

    with pytest.raises(ExportError, match="does not match the trained model"):
        export("FAIL")
    assert hub.calls == []
    capsys.readouterr()
    export("PASS")
    assert [path for path, _ in hub.calls][-1].endswith("/commit/main")
    said = capsys.readouterr().out
    if as_json:
        assert json.loads(said)["verdict"] == "PASS"
    else:
        assert re.search(r"^uploaded: http://127.*/me/model$", said, re.MULTILINE)
