"""The other side: the reference LMS behind a door of our own, which can fail in every way that we like."""

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from invigilator.demo.reference import Call, ReferenceLms, Result
from invigilator.local.server import free_port

TOKEN = "acceptance-token"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer given instead of the LMS's own."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    """Why, in the body."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call as it came in; `at` is monotonic, in seconds."""

    path: str
    effect_id: str | None
    body: bytes
    at: float

    @property
    def fields(self) -> Any:
        """What the body says."""
        return json.loads(self.body) if self.body else {}


Script = Callable[[Request], Answer | None]


class Lms:
    """An LMS on one port, open or shut. What it remembers outlives its closing times."""

    def __init__(self) -> None:
        self.reference = ReferenceLms(token=TOKEN)
        self.requests: list[Request] = []
        self.script: Script = lambda _request: None
        """Answers instead of the LMS, or says None."""
        self.latency_s = 0.0
        self._port = free_port()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def calls(self) -> list[Call]:
        """Every call that the LMS has understood, in order."""
        return self.reference.calls

    @property
    def refused(self) -> int:
        """How many calls were not as the contract says."""
        return self.reference.counts[Result.REFUSED]

    def credit(self, user_id: str, course_id: str, content_id: str) -> str | None:
        """What the LMS believes in the end."""
        return self.reference.credit.get((user_id, course_id, "proctored_exam", content_id))

    def open(self) -> None:
        """Listen."""
        self._server = _Server(self._port, self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="lms")
        self._thread.start()

    def shut(self) -> None:
        """Hang up on everybody and refuse connections from now on."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, port: int, lms: Lms) -> None:
        self.lms = lms
        self.shutting = threading.Event()
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        self.shutting.set()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed worker's connection breaks; that is what we are here for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        parts, reference = urlsplit(self.path), self.server.lms.reference
        token = self.headers.get("Authorization")
        self._answer(b"", lambda: reference.answer_get(parts.path, parts.query, token))

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # whoever called was killed in the middle of it
        headers = dict(self.headers.items())
        self._answer(body, lambda: self.server.lms.reference.answer_post(self.path, headers, body))

    def _answer(self, body: bytes, ask: Callable[[], tuple[HTTPStatus, object]]) -> None:
        lms = self.server.lms
        path = urlsplit(self.path).path
        request = Request(path, self.headers.get("Idempotency-Key"), body, time.monotonic())
        lms.requests.append(request)
        scripted = lms.script(request)
        self.server.shutting.wait(lms.latency_s)
        if scripted is None:
            status, document = ask()
            self._send(Answer(status), json.dumps(document).encode())
        else:
            self._send(scripted, json.dumps({"code": scripted.code}).encode())

    def _send(self, answer: Answer, content: bytes) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing."""
