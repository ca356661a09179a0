"""The reference LMS: an HTTP server in memory that follows the LMS's side of docs/contract.md."""

import json
import random
import socket
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from invigilator.demo.reference.store import FIELDS, Call, Result, Store, Target, is_well_formed

STATE = "/credit/state"


class ReferenceLms:
    """An LMS on a free port of 127.0.0.1, in this process.

    It runs between `start` and `stop`, or in a `with` block. The attributes `fail_fraction` and `latency_s` may
    be changed while it runs.
    """

    def __init__(
        self, *, fail_fraction: float = 0.0, latency_s: float = 0.0, seed: int = 0, token: str | None = None
    ) -> None:
        """Prepare the server. It does not listen yet.

        Parameters:
            fail_fraction: the fraction of calls (0 to 1) that are answered 503 before anything changes.
            latency_s: seconds that each answer is delayed.
            seed: the seed of the generator that chooses the calls to fail.
            token: if set, a call without it is answered 401.
        """
        self.fail_fraction = fail_fraction
        self.latency_s = latency_s
        self._token = token
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._chance_lock = threading.Lock()
        self._store = Store()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, for `INVIGILATOR_LMS_URL`."""
        assert self._server is not None, "not started"
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def credit(self) -> Mapping[Target, str]:
        """The credit status by (user, course, namespace, name)."""
        return dict(self._store.credit)

    @property
    def deletions(self) -> list[Mapping[str, str | None]]:
        """The bodies of the resets that were carried out, in order."""
        return self._store.deletions

    @property
    def calls(self) -> list[Call]:
        """Every POST that followed the contract, in order."""
        return list(self._store.calls)

    @property
    def counts(self) -> Counter[Result]:
        """The number of calls by result. `counts.total()` is the number of all calls."""
        return Counter(self._store.counts)

    def name_course(self, course_id: str, name: str) -> None:
        """Set the course's name in the credit state. Without a name, a GET of the credit state is answered 404."""
        self._store.course_names[course_id] = name

    def start(self) -> None:
        """Listen on a free port and serve in a thread of its own."""
        self._server = _Server(self)
        # The poll interval in seconds: stop() waits at most that long for the loop.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="reference-lms")
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and wait for the threads. The properties can still be read, except `url`."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def answer_get(self, path: str, query: str, token: str | None) -> tuple[HTTPStatus, object]:
        """Answer a GET: the credit state of one learner in one course."""
        problem = self._problem(token)
        if problem is not None:
            return problem
        asked = parse_qs(query)
        if path != STATE or asked.keys() != {"user_id", "course_id"}:
            return self._refuse(HTTPStatus.NOT_FOUND, "ask /credit/state with user_id and course_id")
        self._store.count(Result.ASKED)
        name = self._store.course_names.get(asked["course_id"][0])
        if name is None:
            return HTTPStatus.NOT_FOUND, {"error": "no credit state"}
        return HTTPStatus.OK, {"course_name": name}

    def answer_post(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[HTTPStatus, object]:
        """Answer a POST: one of the three calls that change something."""
        problem = self._problem(headers.get("Authorization"))
        if problem is not None:
            return problem
        if path not in FIELDS:
            return self._refuse(HTTPStatus.NOT_FOUND, "no such call")
        effect_id, sequence = headers.get("Idempotency-Key"), headers.get("Invigilator-Sequence", "")
        if not effect_id or not sequence.isdecimal():
            return self._refuse(HTTPStatus.BAD_REQUEST, "Idempotency-Key or Invigilator-Sequence is missing")
        fields = _parsed(body)
        if not is_well_formed(path, fields):
            return self._refuse(
                HTTPStatus.BAD_REQUEST, "the body must have exactly the fields of the contract"
            )
        self._store.write(path, fields, effect_id, int(sequence))
        return HTTPStatus.OK, {}

    def _problem(self, token: str | None) -> tuple[HTTPStatus, object] | None:
        if self._token is not None and token != f"Bearer {self._token}":
            return self._refuse(HTTPStatus.UNAUTHORIZED, "wrong token")
        with self._chance_lock:
            fails = self._chance.random() < self.fail_fraction
        if not fails:
            return None
        self._store.count(Result.FAILED)
        return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "down, as asked"}

    def _refuse(self, status: HTTPStatus, why: str) -> tuple[HTTPStatus, object]:
        self._store.count(Result.REFUSED)
        return status, {"error": why}


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


class _Server(ThreadingHTTPServer):
    """Keeps track of its connections, so that it can stop although clients keep theirs open."""

    daemon_threads = False  # server_close() waits only for threads that are no daemons
    request_queue_size = 128

    def __init__(self, lms: ReferenceLms) -> None:
        self.lms = lms
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        self.stopping.set()
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
    server: _Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self._send(*self.server.lms.answer_get(parts.path, parts.query, self.headers.get("Authorization")))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._send(*self.server.lms.answer_post(self.path, dict(self.headers.items()), body))

    def _send(self, status: HTTPStatus, answer: object) -> None:
        self.server.stopping.wait(self.server.lms.latency_s)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing, because standard error belongs to the program that runs the server."""
