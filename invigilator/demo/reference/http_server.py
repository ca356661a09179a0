"""An HTTP server in this process. A subclass says what it answers."""

import json
import socket
import sys
import threading
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from invigilator.demo.reference.background import BackgroundServer


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A call that has arrived whole. The names of its headers are case-insensitive."""

    method: str
    path: str
    query: str
    headers: Message
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The answer to a call. `document` becomes the JSON body."""

    status: HTTPStatus
    document: object
    headers: Mapping[str, str] = field(default_factory=dict)


class HttpServer(BackgroundServer):
    """Listens on 127.0.0.1: on a free port at first, and on the same port when it is started again."""

    def __init__(self) -> None:
        self._port = 0
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @abstractmethod
    def answer(self, request: HttpRequest) -> HttpResponse:
        """Answer a GET or a POST. Each connection has a thread of its own, which calls this.

        Raises:
            ConnectionError: the server hangs up without an answer.
        """

    @property
    def url(self) -> str:
        """The base URL, for `INVIGILATOR_LMS_URL`."""
        assert self._port, "not started"
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, and serve in a thread of its own."""
        self._stopping.clear()
        self._listener = _Listener(self, self._port)
        self._port = self._listener.server_port
        # The poll interval in seconds: stop() waits at most that long for the loop.
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.01,), name="http-server")
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and wait for the threads."""
        if self._listener is None or self._thread is None:
            return
        self._listener.shutdown()
        self._stopping.set()
        self._listener.hang_up()
        self._listener.server_close()
        self._thread.join()
        self._listener = self._thread = None

    def pause(self, seconds: float) -> None:
        """Wait before an answer. The wait ends early when the server is stopped."""
        self._stopping.wait(seconds)


class _Listener(ThreadingHTTPServer):
    """Keeps track of its connections, so that it can stop although clients keep theirs open."""

    daemon_threads = False  # server_close() waits only for threads that are no daemons
    request_queue_size = 128

    def __init__(self, owner: HttpServer, port: int) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        with self._open_lock:
            for connection in self._open:
                with suppress(OSError):  # the client has already closed it
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a killed worker breaks its connections
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Listener

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError  # the caller was killed in the middle of the call
        parts = urlsplit(self.path)
        request = HttpRequest(self.command, parts.path, parts.query, self.headers, body)
        self._send(self.server.owner.answer(request))

    def _send(self, response: HttpResponse) -> None:
        content = json.dumps(response.document).encode()
        self.send_response(response.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing, because standard error belongs to the program that runs the server."""
