"""Clients that take for ever, or do not speak HTTP: they hold up nobody, and are sent away."""

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request

from invigilator.web import bodies
from invigilator.web.bodies import MAX_CALL_BYTES
from invigilator.web.impatience import ImpatientProtocol
from invigilator.web.server import Server
from tests.integration.web.conftest import Api

SLOW = 50
PATIENCE_S = 60  # before the test gives up
SOON_S = 0.3
AWHILE_S = 2.0
CHUNK = b" " * (1 << 20)
ACTS = ("retry", "cancel", "pause", "resume")
REQUEST = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
WITH_A_BODY = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture
def served(api: Api) -> Iterator[tuple[Server, tuple[str, int]]]:
    with api.served() as served:
        yield served


@pytest.fixture
def server(served: tuple[Server, Any]) -> Server:
    return served[0]


@pytest.fixture
def address(served: tuple[Server, tuple[str, int]]) -> tuple[str, int]:
    return served[1]


def connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(PATIENCE_S)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(address)
    return connection


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def answer_of(connection: socket.socket) -> http.client.HTTPResponse:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer


def is_served(address: tuple[str, int]) -> bool:
    host, port = address
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=PATIENCE_S) as client:
        return client.get("/v1/attempts").status_code == 200


def test_headers_that_never_end_hold_up_nobody(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as connections:
        # Given many who send a part of their headers, and one who sends nothing
        slow = [connections.enter_context(connect(address)) for _ in range(SLOW)]
        for connection in slow[1:]:
            connection.sendall(REQUEST[:20])
        # When somebody else calls, they are served
        assert is_served(address)
        # And whoever is slow is sent away
        monkeypatch.setattr(ImpatientProtocol, "headers_s", SOON_S)
        late = connections.enter_context(connect(address))
        late.sendall(REQUEST[:1])
        assert is_closed(late)


def test_a_body_that_never_ends_holds_no_connection(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a call that is answered although its body has only begun
    monkeypatch.setattr(ImpatientProtocol, "body_s", SOON_S)
    with connect(address) as slow:
        slow.sendall(WITH_A_BODY % 100_000_000)
        answer = answer_of(slow)
        assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
        # When the body goes on, byte by byte
        ends_at = time.monotonic() + PATIENCE_S
        try:
            while time.monotonic() < ends_at:
                slow.sendall(b"x")
                time.sleep(0.01)
        except OSError:
            return  # Then the connection is dropped
        raise AssertionError("the connection is still open")


def test_the_next_body_has_a_time_of_its_own(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a call that is answered although its body has only begun
    monkeypatch.setattr(ImpatientProtocol, "body_s", AWHILE_S)
    with connect(address) as client:
        client.sendall(WITH_A_BODY % 3)
        answer_of(client).read()
        # When its end and the beginning of the next one come together, and the time of the first one is over
        monkeypatch.setattr(ImpatientProtocol, "body_s", PATIENCE_S)
        headers = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        client.sendall(b"xxxPOST /v1/commands HTTP/1.1\r\n" + headers + b"\r\n{")
        time.sleep(AWHILE_S)
        client.sendall(b"}")
        # Then the next one is still waited for
        assert answer_of(client).status == 422


def test_who_hangs_up_is_noticed_where_the_body_was_read() -> None:
    router = APIRouter(route_class=bodies.BoundedRoute)

    @router.post("/")
    async def gone(request: Request) -> dict[str, bool]:
        await request.body()
        return {"gone": await request.is_disconnected()}

    app, sent = FastAPI(), list[Any]()
    app.include_router(router)
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"{}"}]

    async def receive() -> Any:
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert sent[1]["body"] == b'{"gone":true}'


@pytest.mark.parametrize("path", ["/v1/commands", *(f"/v1/effects/{act}" for act in ACTS)])
def test_a_body_without_an_end_is_refused_and_not_kept(address: tuple[str, int], path: str) -> None:
    with connect(address) as endless:
        # When somebody without a right to anything sends more than any call may have
        endless.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(1 + MAX_CALL_BYTES // len(CHUNK)):
            endless.sendall(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
        # Then the answer does not wait for the end
        answer = answer_of(endless)
        assert (answer.status, json.load(answer)["code"]) == (413, "too_large")


def test_a_body_that_takes_too_long_is_told_so(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "READ_TIMEOUT_S", SOON_S)
    with connect(address) as slow:
        slow.sendall(b"POST /v1/effects/retry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        answer = answer_of(slow)
        assert (answer.status, json.load(answer)["code"]) == (408, "too_slow")


def test_a_client_that_does_not_read_holds_up_nobody(
    address: tuple[str, int], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImpatientProtocol, "answer_s", SOON_S)
    with connect(address) as deaf:
        # Given a client that asks for much, and reads nothing
        deaf.sendall(REQUEST * 400)
        assert is_served(address)
        # Then its connection is dropped, and so is what is kept for it
        ends_at = time.monotonic() + PATIENCE_S
        while server.server_state.connections and time.monotonic() < ends_at:
            time.sleep(0.01)
        assert not server.server_state.connections


def test_a_client_that_asks_again_and_again_is_no_slow_one(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImpatientProtocol, "headers_s", SOON_S)
    host, port = address
    with httpx.Client(base_url=f"http://{host}:{port}", timeout=PATIENCE_S) as client:
        began = time.monotonic()
        while time.monotonic() < began + 2 * SOON_S:
            assert client.get("/healthz").status_code == 200
        assert client.get("/v1/events", headers={"Prefer": "wait=1"}).status_code == 404


@pytest.mark.parametrize("request_line", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9\r\n\r\n", b"GET\r\n\r\n"])
def test_what_is_no_http_is_answered_with_a_problem(address: tuple[str, int], request_line: bytes) -> None:
    with connect(address) as connection:
        connection.sendall(request_line + b"\r\n\r\n")
        answer = answer_of(connection)
        problem = json.load(answer)
        assert (answer.status, problem["status"], problem["code"]) == (400, 400, "invalid_request")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert is_closed(connection)
