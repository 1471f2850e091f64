"""Ray's Jobs API over plain HTTP: a client needs no Ray."""

import json
import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from remote_trainer.errors import RemoteTrainerError, UserInputError

logger = logging.getLogger(__name__)

ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SECONDS = 60.0
START_SECONDS = 30.0
NO_AGENT = "No available agent"
"""What Ray answers until the process that starts jobs listens, seconds after the dashboard does."""
WHERE = "--address"


class RemoteError(RemoteTrainerError):
    """A cluster or a machine did not do what was asked."""


class ConnectionLostError(RemoteError):
    """Nobody answers at an address."""


@dataclass(frozen=True)
class Job:
    """What a cluster knows of one job."""

    id: str
    status: str
    message: str
    metadata: Mapping[str, str]

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ENDED


def parse_address(text: str) -> str:
    """``http(s)://host:port``; raises UserInputError."""
    address = text if "://" in text else f"http://{text}"
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise UserInputError.at(
            WHERE, f"{text!r} is not the address of a dashboard; write http://HOST:8265"
        )
    try:
        port = parts.port
    except ValueError:
        raise UserInputError.at(
            WHERE, f"{text!r} has no valid port; write http://HOST:8265"
        ) from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")


class JobsClient:
    """The jobs of one cluster.

    Every method raises ConnectionLostError if nobody answers, UserInputError if the token or the
    job is refused, and RemoteError for any other answer.
    """

    def __init__(self, address: str, token: str | None) -> None:
        """Warns if the token would travel where others can read it."""
        self.address = parse_address(address)
        self._token = token
        parts = urllib.parse.urlsplit(self.address)
        if token and parts.scheme == "http" and parts.hostname not in LOOPBACK:
            logger.warning(
                "%s is not encrypted: others on the way can read the token and run commands on "
                "the cluster. Use --host user@machine (an SSH tunnel), or https",
                self.address,
            )

    def upload(self, name: str, content: bytes) -> str:
        """Store a package; returns its URI."""
        self._ask("PUT", f"/api/packages/gcs/{name}", content)
        return f"gcs://{name}"

    def submit(
        self,
        job_id: str,
        entrypoint: str,
        runtime_env: Mapping[str, Any],
        metadata: Mapping[str, str],
    ) -> None:
        """Start a job; waits for a cluster that has just begun and takes none yet."""
        body = {
            "submission_id": job_id,
            "entrypoint": entrypoint,
            "runtime_env": runtime_env,
            "metadata": metadata,
        }
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self._ask("POST", "/api/jobs/", json.dumps(body).encode())
                return
            except RemoteError as error:
                if NO_AGENT not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(1)

    def job(self, job_id: str) -> Job:
        """A job by its id."""
        return _job(json.loads(self._ask("GET", self._path(job_id))))

    def jobs(self) -> list[Job]:
        """The submitted jobs, oldest first."""
        found = json.loads(self._ask("GET", "/api/jobs/"))
        found = [each for each in found if each.get("submission_id")]
        return [_job(each) for each in sorted(found, key=lambda e: e.get("start_time") or 0)]

    def logs(self, job_id: str) -> str:
        """All that a job has printed."""
        return str(json.loads(self._ask("GET", f"{self._path(job_id)}/logs"))["logs"] or "")

    def stop(self, job_id: str) -> None:
        """Ask a job to stop; returns at once."""
        self._ask("POST", f"{self._path(job_id)}/stop", b"")

    @staticmethod
    def _path(job_id: str) -> str:
        return f"/api/jobs/{urllib.parse.quote(job_id, safe='')}"

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.address + path, body, headers, method=method)
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            raise _refusal(error, self.address, path, bool(self._token)) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise ConnectionLostError(
                f"{self.address} does not answer ({reason}); check the address, and that the "
                "cluster runs"
            ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token is for this address alone."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _refusal(
    error: urllib.error.HTTPError, address: str, path: str, has_token: bool
) -> RemoteTrainerError:
    text = error.read().decode(errors="replace").strip()
    if error.code in (401, 403):
        found = "refuses this token" if has_token else "asks for a token"
        return UserInputError.at(
            WHERE,
            f"{address} {found}; write the cluster's token into the file of RAY_AUTH_TOKEN_PATH "
            "(default ~/.ray/auth_token), or use --host",
        )
    if error.code == 404 and path.startswith("/api/jobs/") and path != "/api/jobs/":
        return UserInputError.at("job", f"{address} has no such job; `status` lists its jobs")
    last = text.splitlines()[-1] if text else error.reason
    return RemoteError(f"{address} answered {error.code}: {last}")


def _job(found: Mapping[str, Any]) -> Job:
    return Job(
        id=found.get("submission_id") or found.get("job_id") or "",
        status=found["status"],
        message=found.get("message") or "",
        metadata=found.get("metadata") or {},
    )
