"""The HTTP adapter against servers that are right, wrong, rude and slow."""

import json
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import UUID

import httpcore
import httpx
import psutil
import pytest
import trustme

from invigilator.demo.reference import ReferenceLms, Result
from tests.fakes.servers import ScriptedServer, drip, serving
from tests.unit.events.messages import TRACE
from worker.errors import Misconfigured, Refused, ServiceError, Unavailable
from worker.lms.credentials import BearerToken
from worker.lms.http import HttpLms
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Origin
from worker.lms.transport import MAX_BODY_BYTES, DeadlineBackend, Request, exchange

REQUIREMENT = CreditRequirement("learner-42", "course-v1:Org+C+1", "block-v1:Org+C+1+b")
TARGET = ("learner-42", "course-v1:Org+C+1", "proctored_exam", "block-v1:Org+C+1+b")
KEY = CallKey(UUID(int=7), 3, Origin("/lms/a b", "é/1", "code 1", TRACE))
TOKEN = "s3cret-token"
PERSONAL = ("learner-42", "ada-lovelace", TOKEN)


def soon() -> Deadline:
    return Deadline.after(30)


@contextmanager
def client(url: str, token: str | None = TOKEN) -> Iterator[HttpLms]:
    with ExitStack() as stack:
        lms = HttpLms(url, BearerToken(token) if token else None)
        stack.callback(lms.close)
        yield lms


@contextmanager
def rude(script: Callable[[socket.socket], None]) -> Iterator[tuple[HttpLms, ScriptedServer]]:
    """A client of a server that reads one request on each connection and then follows the script."""

    def after_the_request(connection: socket.socket) -> None:
        read_request(connection)
        script(connection)

    with serving(after_the_request) as server, client(f"http://127.0.0.1:{server.port}") as lms:
        yield lms, server


def read_request(connection: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """The request line, the headers by lower-case name, and the body."""
    with connection.makefile("rb") as file:
        line = file.readline().decode().strip()
        headers = {}
        while header := file.readline().decode().strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        return line, headers, file.read(int(headers.get("content-length", "0")))


def answer(status: str, body: str | bytes = b"", *headers: str) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    head = "\r\n".join(
        [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close", *headers]
    )
    return head.encode() + b"\r\n\r\n" + content


def answering(status: str, body: str | bytes = b"", *headers: str) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer(status, body, *headers))


def set_credit(lms: HttpLms, deadline: Deadline | None = None) -> None:
    lms.set_status(REQUIREMENT, "submitted", KEY, deadline or soon())


def failure_of(lms: HttpLms, deadline: Deadline | None = None) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        set_credit(lms, deadline)
    assert not any(word in str(caught.value) for word in PERSONAL)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def asked_name(body: str | bytes, status: str = "200 OK") -> str | None:
    with rude(answering(status, body)) as (lms, _):
        return lms.course_name("learner-42", "c", None, soon())


# What is sent


def test_a_name_server_that_hangs_is_asked_once(hanging: list[bytes]) -> None:
    with client("http://dead.test") as lms:
        for _ in range(3):
            assert "took longer than" in str(failure_of(lms, Deadline.after(0.2)))
    assert len(hanging) == 1


def test_the_calls_are_those_of_the_contract() -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    def script(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(answer("200 OK", "{}"))

    with serving(script) as server, client(f"http://127.0.0.1:{server.port}/some/prefix/") as lms:
        lms.set_status(REQUIREMENT, "satisfied", KEY, soon())
        lms.remove(REQUIREMENT, KEY, soon())
        lms.delete_student_attempt("ada-lovelace", "c", "b", None, KEY, soon())
        lms.course_name("learner 42&", "course-v1:Org+C+1", KEY.origin, soon())

    requirement = {
        "user_id": "learner-42",
        "course_id": "course-v1:Org+C+1",
        "req_namespace": "proctored_exam",
        "req_name": "block-v1:Org+C+1+b",
    }
    reset = {"username": "ada-lovelace", "course_id": "c", "content_id": "b", "requested_by": None}
    assert [line for line, _, _ in seen] == [
        "POST /some/prefix/credit/set-requirement-status HTTP/1.1",
        "POST /some/prefix/credit/remove-requirement-status HTTP/1.1",
        "POST /some/prefix/instructor/delete-student-attempt HTTP/1.1",
        "GET /some/prefix/credit/state?user_id=learner+42%26&course_id=course-v1%3AOrg%2BC%2B1 HTTP/1.1",
    ]
    bodies = [json.loads(body) for _, _, body in seen[:3]]
    assert bodies == [{**requirement, "status": "satisfied"}, requirement, reset]
    for _, headers, _ in seen[:3]:
        assert headers["idempotency-key"] == "00000000-0000-0000-0000-000000000007"
        assert headers["invigilator-sequence"] == "3"
        assert headers["content-type"] == "application/json"
    for _, headers, _ in seen:
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert headers["user-agent"] == "invigilator"
        # Each part is percent-encoded, so that the space between them is the only one
        assert headers["invigilator-command"] == "/lms/a%20b %C3%A9%2F1"
        assert headers["invigilator-attempt"] == "code%201"
        assert headers["traceparent"] == TRACE


def test_without_a_token_there_is_no_authorization() -> None:
    seen: list[dict[str, str]] = []

    def script(connection: socket.socket) -> None:
        seen.append(read_request(connection)[1])
        connection.sendall(answer("204 No Content"))

    with serving(script) as server, client(f"http://127.0.0.1:{server.port}", token=None) as lms:
        set_credit(lms)

    assert "authorization" not in seen[0]


def test_the_reference_lms_understands_each_call() -> None:
    with ReferenceLms(token=TOKEN) as reference, client(reference.url) as lms:
        reference.name_course("course-v1:Org+C+1", "Álgebra & more")

        lms.set_status(REQUIREMENT, "submitted", KEY, soon())
        assert reference.credit == {TARGET: "submitted"}
        lms.remove(REQUIREMENT, CallKey(UUID(int=8), 4), soon())
        assert reference.credit == {}
        lms.delete_student_attempt("ada", "c", "b", "grace", KEY, soon())
        name = lms.course_name("learner-42", "course-v1:Org+C+1", None, soon())

    assert name == "Álgebra & more"
    assert reference.counts == Counter({Result.APPLIED: 2, Result.DUPLICATE: 1, Result.ASKED: 1})


# What an answer means


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "204 No Content", "299 Whatever"])
def test_2xx_is_done_whatever_the_body(status: str) -> None:
    with rude(answering(status, "" if status.startswith("204") else "not JSON")) as (lms, _):
        set_credit(lms)


@pytest.mark.parametrize("status", [403, 408, 425, 429, 500, 502, 503, 504, 599])
def test_these_are_worth_another_try(status: int) -> None:
    with rude(answering(f"{status} No", "ada-lovelace is learner-42")) as (lms, _):
        failure = failure_of(lms)

    assert type(failure) is Unavailable
    assert str(failure) == f"LMS answered {status} to POST /credit/set-requirement-status"
    assert failure.retry_after_s is None


@pytest.mark.parametrize(("status", "setting"), [(401, "LMS_TOKEN"), (407, "LMS_PROXY")])
def test_these_are_about_our_credentials_and_not_about_the_call(status: int, setting: str) -> None:
    with rude(answering(f"{status} No", '{"code": "token_expired"}', "Retry-After: 7")) as (lms, _):
        failure = failure_of(lms)

    assert isinstance(failure, Misconfigured)
    assert failure.setting == f"INVIGILATOR_{setting}"
    assert str(failure) == f"LMS answered {status} to POST /credit/set-requirement-status (token_expired)"
    assert failure.retry_after_s is None  # as after a time-out


@pytest.mark.parametrize("status", [300, 301, 304, 307, 308, 400, 404, 405, 409, 410, 422, 499, 600])
def test_the_rest_is_not(status: int) -> None:
    headers = ("Location: /elsewhere", "Retry-After: 7")
    with rude(answering(f"{status} No", "", *headers)) as (lms, server):
        failure = failure_of(lms)

    assert isinstance(failure, Refused)
    assert str(failure) == f"LMS answered {status} to POST /credit/set-requirement-status"
    assert server.connections == 1  # no redirect was followed


@pytest.mark.parametrize(("value", "seconds"), [("17", 17), ("-1", 0), ("soon", None)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_handed_on(status: int, value: str, seconds: float | None) -> None:
    with rude(answering(f"{status} No", "", f"Retry-After: {value}")) as (lms, _):
        failure = failure_of(lms)

    assert isinstance(failure, Unavailable)
    assert failure.retry_after_s == seconds


@pytest.mark.parametrize("status", [400, 403, 409, 422, 503])
def test_the_reason_of_a_refusal_is_kept_and_nothing_else_of_its_body(status: int) -> None:
    body = {"code": "requirement_unknown", "detail": "learner-42 has none", "type": "https://lms.invalid/x"}
    with rude(answering(f"{status} No", json.dumps(body))) as (lms, _):
        failure = failure_of(lms)

    assert str(failure) == (
        f"LMS answered {status} to POST /credit/set-requirement-status (requirement_unknown)"
    )


@pytest.mark.parametrize("repeated", [TOKEN, "ada-lovelace"], ids=["token", "name"])
def test_what_a_call_carries_is_no_reason(repeated: str) -> None:
    with (
        rude(answering("422 No", json.dumps({"code": repeated}))) as (lms, _),
        pytest.raises(Refused) as caught,
    ):
        lms.delete_student_attempt("ada-lovelace", "c", "b", None, KEY, soon())

    assert str(caught.value) == "LMS answered 422 to POST /instructor/delete-student-attempt"


# The course's name


@pytest.mark.parametrize(
    "body",
    [
        '{"course_name": ""}',
        '{"course_name": "  "}',
        '{"course_name": null}',
        '{"course_name": 7}',
        "{}",
        "[]",
        '"name"',
        "",
        "<html>",
        b"\xff\xfe",
        b"\x1f\x8b\x08\x00",
        "[" * 60_000,
        '{"course_name": "' + "x" * MAX_BODY_BYTES + '"}',
    ],
    ids=range(13),
)
def test_an_answer_without_a_name_is_no_name(body: str | bytes) -> None:
    assert asked_name(body) is None


def test_404_is_no_name_and_other_refusals_are_refusals() -> None:
    assert asked_name('{"course_name": "Maths"}', "404 Not Found") is None
    with pytest.raises(Refused, match=r"LMS answered 400 to GET /credit/state \(no_course\)"):
        asked_name('{"code": "no_course"}', "400 Bad Request")
    with pytest.raises(Unavailable, match="LMS answered 503 to GET /credit/state"):
        asked_name("", "503 Service Unavailable")


def test_a_name_comes_back_as_it_is_but_can_always_be_written() -> None:
    assert asked_name('{"course_name": "Álgebra 1"}') == "Álgebra 1"
    assert asked_name('{"course_name": "half a pair: \\ud800"}') == "half a pair: ?"


# What goes wrong on the way


def test_nobody_there_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with client(f"http://127.0.0.1:{port}") as lms:
        failure = failure_of(lms)

    assert isinstance(failure, Unavailable)
    assert "ConnectionRefusedError" in str(failure)


def test_a_name_that_nobody_knows_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror

    with client("http://lms.test") as lms:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        assert "no answer from the LMS" in str(failure_of(lms))


@pytest.mark.parametrize("error", [httpcore.ConnectTimeout, TimeoutError])
def test_a_time_out_of_the_system_is_none_of_ours(error: type[Exception]) -> None:
    """The system gives up when nobody answers, perhaps long before the deadline."""

    class Network(httpcore.NetworkBackend):
        def connect_tcp(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
            raise error

    backend = DeadlineBackend(network=Network())
    with httpcore.ConnectionPool(network_backend=backend) as pool, pytest.raises(error):
        exchange(pool, Request.to(httpx.URL("http://127.0.0.1"), "GET", {}, None), soon(), "a call")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthis is not all of it",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"220 mail.example.org ESMTP learner-42\r\n",
        b"\x00" * 200_000,
    ],
)
def test_a_broken_answer_is_transient(sent: bytes) -> None:
    with rude(lambda connection: connection.sendall(sent)) as (lms, _):
        assert isinstance(failure_of(lms), Unavailable)


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["status line", "headers", "body", "1xx"],
)
def test_a_dripping_server_is_cut_off(first: bytes, drop: bytes) -> None:
    with rude(lambda connection: drip(connection, first, drop)) as (lms, _):
        failure = failure_of(lms, Deadline.after(0.2))

    assert isinstance(failure, Unavailable)
    assert str(failure) == "POST /credit/set-requirement-status took longer than 0.2 s"


def test_a_silent_server_is_cut_off() -> None:
    with rude(lambda connection: drip(connection, b"", b"")) as (lms, _):
        assert "took longer than 0.2 s" in str(failure_of(lms, Deadline.after(0.2)))


def test_a_server_that_drips_instead_of_encrypting_is_cut_off() -> None:
    record = b"\x16\x03\x03\x40\x00"  # the beginning of a handshake's record of 16 KiB
    with (
        serving(lambda connection: drip(connection, record, b"\x00")) as server,
        client(f"https://127.0.0.1:{server.port}") as lms,
    ):
        assert "took longer than 0.2 s" in str(failure_of(lms, Deadline.after(0.2)))


def test_a_server_that_reads_nothing_is_cut_off() -> None:
    """More is sent than the sockets of both sides hold."""
    too_much = CreditRequirement("learner-42", "c" * 20_000_000, "b")
    done = threading.Event()
    with (
        serving(lambda _: done.wait()) as server,
        client(f"http://127.0.0.1:{server.port}") as lms,
    ):
        try:
            with pytest.raises(Unavailable, match=r"took longer than 0\.5 s$"):
                lms.set_status(too_much, "submitted", KEY, Deadline.after(0.5))
        finally:
            done.set()


def test_more_body_than_anyone_needs_is_not_read() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n"
    with rude(lambda connection: drip(connection, endless, b"x" * MAX_BODY_BYTES)) as (lms, _):
        set_credit(lms)


# Connections and threads


def test_many_threads_share_a_few_connections() -> None:
    connections = 0

    def script(connection: socket.socket) -> None:
        nonlocal connections
        connections += 1
        for _ in range(20):
            read_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with serving(script) as server, client(f"http://127.0.0.1:{server.port}") as lms:
        for _ in range(20):
            set_credit(lms)
    assert connections == 1

    with ReferenceLms() as reference, client(reference.url) as lms, ThreadPoolExecutor(8) as threads:
        keys = [CallKey(UUID(int=number), number) for number in range(200)]
        list(threads.map(lambda key: lms.set_status(REQUIREMENT, "submitted", key, soon()), keys))
    assert reference.counts.total() == 200


def test_a_connection_that_the_server_has_closed_meanwhile_is_not_used_again() -> None:
    closed = threading.Event()

    def script(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        connection.close()
        closed.set()

    with serving(script) as server, client(f"http://127.0.0.1:{server.port}") as lms:
        set_credit(lms)
        closed.wait()
        set_credit(lms)

    assert server.connections == 2


def test_after_a_time_out_the_client_works_on() -> None:
    with ReferenceLms(latency_s=60) as reference, client(reference.url) as lms:
        assert isinstance(failure_of(lms, Deadline.after(0.1)), Unavailable)
        reference.latency_s = 0
        set_credit(lms)


def test_time_outs_leave_no_connection_behind() -> None:
    keys = [CallKey(UUID(int=number), number) for number in range(300)]
    with (
        ReferenceLms(latency_s=60) as reference,
        client(reference.url) as lms,
        ThreadPoolExecutor(16) as threads,
    ):

        def times_out(key: CallKey) -> None:
            with pytest.raises(Unavailable):
                lms.set_status(REQUIREMENT, "submitted", key, Deadline.after(0.05))

        list(threads.map(times_out, keys))
        reference.latency_s = 0
        set_credit(lms)

        port = httpx.URL(reference.url).port
        ours = [
            one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port
        ]
        assert [one.status for one in ours].count(psutil.CONN_ESTABLISHED) == 1  # the last one, kept alive


def printed(script: str) -> str:
    """What a process of its own prints that runs a script, and ends by itself."""
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_name_server_that_hangs_keeps_no_process() -> None:
    script = """
import socket, threading
from worker.errors import Transient
from worker.lms.http import HttpLms
from worker.lms.ports import Deadline
known, never = socket.getaddrinfo, threading.Event()
socket.getaddrinfo = lambda *args, **more: known(*args, **more) if "flags" in more else never.wait()
try:
    HttpLms("http://lms.test").course_name("u", "c", None, Deadline.after(0.05))
except Transient:
    print("done")
"""
    assert printed(script) == "done\n"


def test_closing_twice_or_unused_is_fine() -> None:
    lms = HttpLms("http://127.0.0.1:1")
    lms.close()
    failure_of(lms)
    lms.close()
    lms.close()


def test_a_process_that_forgets_to_close_ends_all_the_same() -> None:
    script = """
from worker.errors import Transient
from worker.lms.http import HttpLms
from worker.lms.ports import Deadline
try:
    HttpLms("http://127.0.0.1:1").course_name("u", "c", None, Deadline.after(30))
except Transient:
    print("done")
"""
    assert printed(script) == "done\n"


# TLS


def serve_tls(
    authority: trustme.CA, script: Callable[[socket.socket], None]
) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def encrypted(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            script(wrapped)

    return encrypted


def answer_once(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(answer("200 OK", "{}"))


def test_a_certificate_of_a_trusted_authority_is_taken(trusted: trustme.CA) -> None:
    with (
        serving(serve_tls(trusted, answer_once)) as server,
        client(f"https://127.0.0.1:{server.port}") as lms,
    ):
        set_credit(lms)


def test_many_calls_share_an_encrypted_connection(trusted: trustme.CA) -> None:
    def answer_twenty(connection: socket.socket) -> None:
        for _ in range(20):
            read_request(connection)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with (
        serving(serve_tls(trusted, answer_twenty)) as server,
        client(f"https://127.0.0.1:{server.port}") as lms,
    ):
        for _ in range(20):
            set_credit(lms)
    assert server.connections == 1


def test_a_connection_that_breaks_off_is_named_within_tls_too(trusted: trustme.CA) -> None:
    def reset(connection: socket.socket) -> None:
        read_request(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with (
        serving(serve_tls(trusted, reset)) as server,
        client(f"https://127.0.0.1:{server.port}") as lms,
    ):
        assert "ConnectionResetError" in str(failure_of(lms))


def test_any_other_certificate_is_not() -> None:
    with (
        serving(serve_tls(trustme.CA(), answer_once)) as server,
        client(f"https://127.0.0.1:{server.port}") as lms,
    ):
        failure = failure_of(lms)

    assert isinstance(failure, Unavailable)
    assert "SSLCertVerificationError" in str(failure)
