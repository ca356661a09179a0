"""How the worker shows the LMS who calls: OAuth 2, client certificates, headers, and a proxy on the way."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
import trustme

from invigilator.demo.reference import ReferenceLms, Result
from tests.fakes.servers import drip, serving
from tests.fakes.token_server import TokenServer
from tests.integration.lms.test_http import answer, answering, read_request
from tests.tls import HOST, Authority
from tests.tls import Proxy as TlsProxy
from worker.errors import Misconfigured, ServiceError, Unavailable
from worker.lms import oauth
from worker.lms.connect import connect_lms, credentials
from worker.lms.http import HttpLms
from worker.lms.oauth import ClientCredentials
from worker.lms.ports import CallKey, CreditRequirement, Deadline
from worker.lms.streams import BROKEN
from worker.lms.transport import Request, connections, exchange
from worker.settings import Settings

ID, SECRET = "invigilator: lms", "s3cret/& ü"
REQUIREMENT = CreditRequirement("42", "c", "b")


@contextmanager
def connected(lms_url: str, **settings: Any) -> Iterator[HttpLms]:
    read = Settings(_env_file=None, lms_url=lms_url, **settings)
    with closing(connect_lms(read, credentials(read))) as lms:
        yield lms


@contextmanager
def signed_in(lms_url: str, token_url: str, secret: str = SECRET, **settings: Any) -> Iterator[HttpLms]:
    oauth = {"token_url": token_url, "client_id": ID, "client_secret": secret}
    with connected(
        lms_url, **{f"lms_oauth_{name}": value for name, value in oauth.items()}, **settings
    ) as lms:
        yield lms


def call(lms: HttpLms, number: int = 1, deadline: Deadline | None = None) -> None:
    lms.set_status(
        REQUIREMENT, "submitted", CallKey(UUID(int=number), number), deadline or Deadline.after(30)
    )


def failure_of(lms: HttpLms, deadline: Deadline | None = None) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call(lms, deadline=deadline)
    assert "s3cret" not in str(caught.value)
    assert "token-" not in str(caught.value)
    return caught.value


@pytest.fixture
def lms() -> Iterator[ReferenceLms]:
    with ReferenceLms(token="token-1") as lms:
        yield lms


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(ID, SECRET) as server:
        yield server


# OAuth 2


def test_a_token_is_fetched_once_and_used_by_every_thread(lms: ReferenceLms, server: TokenServer) -> None:
    with (
        signed_in(lms.url, server.url, lms_oauth_scope="credit reset") as client,
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(lambda number: call(client, number), range(1, 41)))

    assert lms.counts.total() == 40
    assert lms.counts[Result.REFUSED] == 0
    assert [request.body for request in server.asked] == [b"grant_type=client_credentials&scope=credit+reset"]


@pytest.mark.parametrize("expires_in", [-1, 0])
def test_a_token_that_has_expired_is_fetched_anew(lms: ReferenceLms, expires_in: int) -> None:
    with TokenServer(ID, SECRET, expires_in=expires_in) as server, signed_in(lms.url, server.url) as client:
        call(client, 1)
        lms.token = "token-2"
        call(client, 2)

    assert len(server.asked) == 2
    assert lms.counts == {Result.APPLIED: 2}


def test_a_token_that_is_refused_is_fetched_anew_once(lms: ReferenceLms, server: TokenServer) -> None:
    lms.token = "token-2"
    with signed_in(lms.url, server.url) as client:
        call(client)
        assert lms.counts == {Result.REFUSED: 1, Result.APPLIED: 1}
        # A second refusal says that no token of ours is accepted
        lms.token = "another"
        failure = failure_of(client)

    assert isinstance(failure, Misconfigured)
    assert str(failure) == "LMS answered 401 to POST /credit/set-requirement-status"
    assert "INVIGILATOR_LMS_OAUTH_CLIENT_ID" in failure.setting
    assert len(server.asked) == 3


def test_a_client_that_the_token_server_refuses_is_our_mistake(
    lms: ReferenceLms, server: TokenServer
) -> None:
    with signed_in(lms.url, server.url, secret="s3cret") as client:
        failure = failure_of(client)

    assert isinstance(failure, Misconfigured)
    assert str(failure) == "the token server answered 401 (invalid_client)"
    assert "INVIGILATOR_LMS_OAUTH_CLIENT_ID" in failure.setting
    assert lms.counts.total() == 0


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "7",
        "<html>",
        "{}",
        '{"error": "s3cret"}',
        '{"access_token": 7}',
        '{"access_token": "s3cret s3cret"}',
        '{"access_token": "s3cret", "token_type": "mac"}',
        '{"access_token": "s3cret", "expires_in": "soon"}',
        '{"access_token": "s3cret", "expires_in": 1e400}',
        '{"access_token": "s3cret", "expires_in": NaN}',
        f'{{"access_token": "s3cret", "expires_in": {"9" * 400}}}',
        "[" * 60_000,
        b"\xff",
    ],
)
def test_an_answer_without_a_usable_token_is_our_mistake(lms: ReferenceLms, body: str | bytes) -> None:
    with (
        serving(after_the_request(answering("200 OK", body))) as server,
        signed_in(lms.url, f"http://127.0.0.1:{server.port}/token") as client,
    ):
        failure = failure_of(client)

    assert isinstance(failure, Misconfigured)
    assert failure.setting == "INVIGILATOR_LMS_OAUTH_TOKEN_URL"


def test_a_token_server_that_is_busy_is_asked_again_later(lms: ReferenceLms) -> None:
    busy = answering("503 No", '{"error": "temporarily_unavailable"}', "Retry-After: 7")
    with (
        serving(after_the_request(busy)) as server,
        signed_in(lms.url, f"http://127.0.0.1:{server.port}") as client,
    ):
        failure = failure_of(client)

    assert type(failure) is Unavailable
    assert str(failure) == "the token server answered 503 (temporarily_unavailable)"
    assert failure.retry_after_s == 7


def test_a_token_server_that_is_away_is_named(lms: ReferenceLms) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with signed_in(lms.url, f"http://127.0.0.1:{port}") as client:
        failure = failure_of(client)

    assert type(failure) is Unavailable
    assert str(failure) == (
        "no answer from the token server (ConnectionRefusedError); check INVIGILATOR_LMS_OAUTH_TOKEN_URL"
    )


def test_a_token_server_that_is_silent_is_cut_off_and_the_next_call_asks_again(
    lms: ReferenceLms, server: TokenServer
) -> None:
    def silent_at_first(connection: socket.socket) -> None:
        read_request(connection)
        if scripted.connections == 1:
            drip(connection, b"", b"")
        connection.sendall(answer("200 OK", '{"access_token": "token-1"}'))

    with (
        serving(silent_at_first) as scripted,
        signed_in(lms.url, f"http://127.0.0.1:{scripted.port}") as client,
    ):
        failure = failure_of(client, Deadline.after(0.2))
        call(client)

    assert str(failure) == "the token server took longer than 0.2 s"
    assert lms.counts == {Result.APPLIED: 1}


def test_whoever_waits_for_a_token_keeps_its_own_deadline(lms: ReferenceLms) -> None:
    asked, done = threading.Event(), threading.Event()

    def silent(connection: socket.socket) -> None:
        asked.set()
        done.wait()

    with (
        serving(silent) as scripted,
        signed_in(lms.url, f"http://127.0.0.1:{scripted.port}") as client,
        ThreadPoolExecutor(1) as other,
    ):
        fetching = other.submit(failure_of, client)
        asked.wait()
        waited = failure_of(client, Deadline.after(0.2))
        done.set()
        assert "no answer from the token server" in str(fetching.result())

    assert str(waited) == "the token server took longer than 0.2 s"


def test_a_newer_token_than_the_one_that_was_refused_is_kept(server: TokenServer) -> None:
    credentials = ClientCredentials(server.url, ID, SECRET)
    with connections() as pool:
        first = credentials.token(pool, Deadline.after(30))
        assert credentials.renew("an older one")
        assert credentials.token(pool, Deadline.after(30)) == first
        assert credentials.renew(first)
        assert credentials.token(pool, Deadline.after(30)) != first


def test_a_token_may_be_refused_while_another_call_looks_at_it(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = ClientCredentials(server.url, ID, SECRET)
    with connections() as pool:
        first = credentials.token(pool, Deadline.after(30))

        def refused_now() -> float:
            credentials.renew(first)
            return time.monotonic()

        monkeypatch.setattr(oauth, "time", SimpleNamespace(monotonic=refused_now))
        assert credentials.token(pool, Deadline.after(30)) == first


def after_the_request(script: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def read_first(connection: socket.socket) -> None:
        read_request(connection)
        script(connection)

    return read_first


# Headers


def test_the_headers_of_a_gateway_go_to_the_lms_and_not_to_the_token_server(server: TokenServer) -> None:
    seen: list[dict[str, str]] = []

    def script(connection: socket.socket) -> None:
        seen.append(read_request(connection)[1])
        connection.sendall(answer("204 No Content"))

    headers = json.dumps({"X-Api-Key": "abc def"})
    with (
        serving(script) as scripted,
        signed_in(f"http://127.0.0.1:{scripted.port}", server.url, lms_headers=headers) as client,
    ):
        call(client)

    assert seen[0]["x-api-key"] == "abc def"
    assert seen[0]["authorization"] == "Bearer token-1"
    assert "X-Api-Key" not in server.asked[0].headers


def test_a_header_of_the_settings_takes_the_place_of_ours() -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        seen.append(connection.recv(65_536).lower())
        connection.sendall(answer("204 No Content"))

    with (
        serving(script) as scripted,
        connected(f"http://127.0.0.1:{scripted.port}", lms_headers='{"user-agent": "Exams"}') as client,
    ):
        client.course_name("42", "c", None, Deadline.after(30))

    assert seen[0].count(b"user-agent:") == 1
    assert b"user-agent: exams\r\n" in seen[0]


def test_authorization_may_be_a_header_of_the_settings(lms: ReferenceLms) -> None:
    with connected(lms.url, lms_headers='{"Authorization": "Bearer token-1"}') as client:
        call(client)
        lms.token = "another"
        failure = failure_of(client)

    assert isinstance(failure, Misconfigured)
    assert failure.setting == "INVIGILATOR_LMS_HEADERS"


# A proxy


def test_every_call_goes_through_the_proxy() -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    def script(connection: socket.socket) -> None:
        line, headers, _ = read_request(connection)
        seen.append((line, headers))
        connection.sendall(answer("200 OK", '{"access_token": "t"}'))

    with serving(script) as proxy:
        through = f"http://me:s3cret@127.0.0.1:{proxy.port}"
        with signed_in("http://lms.invalid/api", "http://id.invalid/token", lms_proxy=through) as client:
            call(client)

    assert [line.split()[1] for line, _ in seen] == [
        "http://id.invalid/token",
        "http://lms.invalid/api/credit/set-requirement-status",
    ]
    assert all(headers["proxy-authorization"] == "Basic bWU6czNjcmV0" for _, headers in seen)


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that the worker trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca)
    return authority


@contextmanager
def through_an_encrypted_proxy(
    authority: Authority, lms: Callable[[socket.socket], None], *, asks_clients: bool = False, **settings: Any
) -> Iterator[HttpLms]:
    """A client whose proxy speaks TLS; `lms` has the connection after CONNECT."""

    def script(connection: socket.socket) -> None:
        line, _, _ = read_request(connection)
        assert line.startswith(f"CONNECT {HOST}:443 ")
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        lms(connection)

    with (
        serving(script) as proxy,
        TlsProxy(proxy.port, authority.server_context(asks_clients=asks_clients)) as encrypted,
        connected(f"https://{HOST}", lms_proxy=f"https://{HOST}:{encrypted.port}", **settings) as client,
    ):
        yield client


def test_tls_within_tls(authority: Authority) -> None:
    def lms(connection: socket.socket) -> None:
        with authority.server_context().wrap_socket(connection, server_side=True) as wrapped:
            for _ in range(2):
                read_request(wrapped)
                wrapped.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with through_an_encrypted_proxy(authority, lms) as client:
        call(client, 1)
        call(client, 2)


def test_an_lms_that_drips_within_an_encrypted_proxy_is_cut_off(authority: Authority) -> None:
    """Each byte comes in a record of the proxy's, long before a time-out of one wait."""

    def lms(connection: socket.socket) -> None:
        connection.recv(1)  # a client of TLS speaks first
        drip(connection, b"\x16\x03\x03\x40\x00", b"\x00")

    with through_an_encrypted_proxy(authority, lms) as client:
        failure = failure_of(client, Deadline.after(0.5))

    assert str(failure) == "POST /credit/set-requirement-status took longer than 0.5 s"


def test_an_lms_that_hangs_up_within_an_encrypted_proxy_is_not_late(authority: Authority) -> None:
    with through_an_encrypted_proxy(authority, lambda _: None) as client:
        assert "no answer from the LMS" in str(failure_of(client))


def test_a_proxy_does_not_get_the_certificate_for_the_lms(authority: Authority) -> None:
    ours = {"lms_cert": authority.certificate, "lms_key": authority.key}
    with through_an_encrypted_proxy(authority, lambda _: None, asks_clients=True, **ours) as client:
        assert "no answer from the LMS" in str(failure_of(client))


def test_a_tunnel_whose_handshake_fails_is_forgotten() -> None:
    established = answering("200 Connection established")
    with serving(after_the_request(established)) as proxy:
        through = httpx.Proxy(f"http://127.0.0.1:{proxy.port}")
        request = Request.to(httpx.URL("https://lms.invalid"), "GET", {}, None)
        with connections(ssl.create_default_context(), through) as pool:
            for _ in range(3):
                with pytest.raises(BROKEN):
                    exchange(pool, request, Deadline.after(30), "a call")
            assert [one.is_closed() for one in pool.connections] in ([], [True])


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_us_is_our_mistake(scheme: str) -> None:
    with serving(after_the_request(answering("407 Proxy Authentication Required"))) as proxy:
        through = f"http://me:s3cret@127.0.0.1:{proxy.port}"
        with connected(f"{scheme}://lms.invalid", lms_proxy=through) as client:
            failure = failure_of(client)

    assert isinstance(failure, Misconfigured)
    assert failure.setting == "INVIGILATOR_LMS_PROXY"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_the_request_for_a_token_is_not_the_token_server(scheme: str) -> None:
    with serving(after_the_request(answering("407 Proxy Authentication Required"))) as proxy:
        through = f"http://me:s3cret@127.0.0.1:{proxy.port}"
        with signed_in("http://lms.invalid", f"{scheme}://id.invalid/token", lms_proxy=through) as client:
            failure = failure_of(client)

    assert isinstance(failure, Misconfigured)
    assert failure.setting == "INVIGILATOR_LMS_PROXY"


# Client certificates


def test_an_lms_that_asks_for_a_certificate_gets_ours(tmp_path: Path, trusted: trustme.CA) -> None:
    ours = trusted.issue_cert("invigilator.example")
    ours.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    ours.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.issue_cert("127.0.0.1").configure_cert(context)
    trusted.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    def script(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            read_request(wrapped)
            wrapped.sendall(answer("200 OK"))

    with serving(script) as server:
        url = f"https://127.0.0.1:{server.port}"
        with connected(url, lms_cert=tmp_path / "cert.pem", lms_key=tmp_path / "key.pem") as client:
            call(client)
        with connected(url) as client:
            assert isinstance(failure_of(client), Unavailable)
