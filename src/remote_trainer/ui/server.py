"""The HTTP server of the local page: on the loopback address only, for reading only."""

import hashlib
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from remote_trainer.errors import UserInputError
from remote_trainer.ui.answers import Answer, answer_to, error_page

LOOPBACK = "127.0.0.1"
USUAL_PORT = 8765
_HEADERS = {
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RunsServer(ThreadingHTTPServer):
    """Serves the runs in a folder until `shutdown`."""

    daemon_threads = True

    def __init__(self, root: Path, port: int | None = None) -> None:
        """``port`` None: `USUAL_PORT`, or any free port if that is taken; 0: any free port.

        Raises UserInputError for a folder that does not exist and for a port that is taken.
        """
        self.root = root
        if not root.is_dir():
            raise UserInputError.at(str(root), "no such folder; write the folder of your runs")
        try:
            super().__init__((LOOPBACK, USUAL_PORT if port is None else port), _Handler)
        except OSError as error:
            if port is not None:
                raise UserInputError.at(
                    "--port", f"{port}: {error.strerror}; write another port, or 0 for a free one"
                ) from None
            super().__init__((LOOPBACK, 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Accepted values of the header Host. A page of another site whose name resolves to this
        machine (DNS rebinding) sends another one."""
        return (f"{LOOPBACK}:{self.server_port}", f"localhost:{self.server_port}")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes the connection early is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: RunsServer
    server_version, sys_version = "remote-trainer", ""

    def do_GET(self) -> None:
        answer = self._answer()
        tag = f'"{hashlib.sha256(answer.body).hexdigest()}"'
        unchanged = answer.status == 200 and self.headers.get("If-None-Match") == tag
        self.send_response(304 if unchanged else answer.status)
        headers = {"Content-Security-Policy": answer.policy, "ETag": tag, **_HEADERS}
        if not unchanged:
            headers |= {"Content-Type": answer.kind, "Content-Length": str(len(answer.body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not unchanged:
            self.wfile.write(answer.body)

    def _answer(self) -> Answer:
        if self.headers.get("Host") not in self.server.hosts:
            return error_page(403, f"Open {self.server.url} instead.")
        try:
            return answer_to(self.path, self.server.root)
        except Exception as error:
            # Files of a run may be damaged in any way, or removed while they are read.
            return error_page(500, f"A file of the run cannot be read: {error}")

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a line per poll helps nobody."""
