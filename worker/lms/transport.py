"""Carries HTTP requests, each within a deadline that covers all of it.

A synchronous client's time-outs apply to each read, so a server that sends one byte a second never exceeds them.
httpcore leaves the reading to a *network backend*. Ours takes the time-outs of a request for moments
(`worker.lms.streams`). An event loop would keep deadlines, too, but handing each call over to its thread and back
took most of what a call costs (docs/decisions/0053).
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ssl import SSLContext, create_default_context
from typing import Any

import httpcore
import httpx

from worker.lms.dialing import Choose, LookUp, dial, left_s, look_up
from worker.lms.http_answers import Answer
from worker.lms.ports import Deadline
from worker.lms.streams import BROKEN, KEEP_S, KeptStream, TimedStream

MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    Parameters:
        method: GET or POST.
        url: where to.
        host: and port, as the header `Host` has them.
        headers: all others.
        body: None for none.
    """

    method: str
    url: httpcore.URL
    host: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)

    @classmethod
    def to(
        cls, url: httpx.URL, method: str, headers: Mapping[str, str], body: bytes | None, target: bytes = b""
    ) -> "Request":
        """Return a request to a URL, or to another path and query on the same server."""
        where = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=target or url.raw_path
        )
        return cls(method, where, url.netloc.decode("ascii"), headers, body)


def exchange(
    pool: httpcore.ConnectionPool,
    request: Request,
    deadline: Deadline,
    what: str,
    body_s: float | None = None,
) -> Answer:
    """Send a request, and return what is answered. Of a long body only the beginning is read.

    Parameters:
        pool: its network backend is a `DeadlineBackend`.
        request: is not sent a second time, and no redirect is followed.
        deadline: of all of it.
        what: the call, as the error names it.
        body_s: so many seconds at most for the body, which counts as far as it has come then. None needs all of
            it.

    Raises:
        Unavailable: the deadline has passed.
        OSError: and the others of `BROKEN`: there is no connection, or no whole answer.
        Misconfigured: no address of the host may be reached.
    """
    headers = [("Host", request.host), *request.headers.items()]
    timeouts = dict.fromkeys(("connect", "write", "read"), deadline.ends_at)
    sent = pool.stream(
        request.method,
        request.url,
        headers=headers,
        content=request.body,
        extensions={"timeout": timeouts},
    )
    try:
        with sent as response:
            if body_s is None:
                body = b"".join(_beginning(response, deadline.ends_at))
            else:
                # httpcore looks for the time-out of reading when the body begins.
                timeouts["read"] = min(deadline.ends_at, time.monotonic() + body_s)
                body = b"".join(_until_it_breaks(_beginning(response, timeouts["read"])))
    except BROKEN:
        if deadline.remaining_s():
            raise
        raise deadline.late(what) from None
    fields = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    return Answer(response.status, fields.get(b"retry-after"), body)


def _beginning(response: httpcore.Response, ends_at: float) -> Iterator[bytes]:
    left = MAX_BODY_BYTES
    for chunk in response.iter_stream():
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return
        left_s(ends_at)  # one read may bring many small chunks


def _until_it_breaks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    with suppress(*BROKEN):
        yield from chunks


def first_cause(error: BaseException) -> BaseException:
    """Return the error that led to this one."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def connections(
    tls: SSLContext | None = None, proxy: httpx.Proxy | None = None, choose: Choose = list
) -> httpcore.ConnectionPool:
    """Return a pool of connections, as many as there are threads that call. Nothing is connected yet.

    Parameters:
        tls: what is trusted, and what shows who we are. None if no URL is `https://`.
        proxy: that every request goes through.
        choose: leaves out addresses of a host.
    """
    backend = DeadlineBackend(choose)
    context = None if tls is None else _settled(tls)
    if proxy is None:
        return httpcore.ConnectionPool(
            ssl_context=context, max_connections=None, keepalive_expiry=KEEP_S, network_backend=backend
        )
    url = proxy.url
    return _ProxiedConnections(
        httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/"),
        proxy_auth=proxy.raw_auth,
        # The proxy does not get the certificate by which the LMS knows us.
        proxy_ssl_context=_settled(create_default_context()) if url.scheme == "https" else None,
        ssl_context=context,
        max_connections=None,
        keepalive_expiry=KEEP_S,
        network_backend=backend,
    )


def _settled(context: SSLContext) -> SSLContext:
    """Say once for all which protocol is spoken.

    httpcore says it again for each connection. Meanwhile another thread may shake hands with the same context,
    and OpenSSL would copy a list that is being replaced (seen).
    """
    context.set_alpn_protocols(["http/1.1"])
    context.set_alpn_protocols = _ignore  # type: ignore[assignment, method-assign]
    return context


def _ignore(protocols: Iterable[str]) -> None:
    """Take the place of `SSLContext.set_alpn_protocols`."""


class _ProxiedConnections(httpcore.HTTPProxy):
    """A pool that forgets a tunnel whose request has failed.

    httpcore 1.0.9 keeps one for ever whose handshake failed, and goes through all of them at each call.
    """

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        connection = super().create_connection(origin)
        send = connection.handle_request

        def handle_request(request: httpcore.Request) -> httpcore.Response:
            try:
                return send(request)
            except httpcore.ConnectionNotAvailable:
                raise  # another thread uses it, or it has closed itself
            except BaseException:
                connection.close()
                raise

        connection.handle_request = handle_request  # type: ignore[method-assign]
        return connection


class DeadlineBackend(httpcore.NetworkBackend):
    """Connects to hosts. What httpcore calls time-outs are moments here, as `time.monotonic()` tells them."""

    def __init__(
        self,
        choose: Choose = list,
        look_up: LookUp = look_up,
        network: httpcore.NetworkBackend | None = None,
    ) -> None:
        """Connect to nothing yet.

        Parameters:
            choose: leaves out addresses of a host.
            look_up: finds the addresses of a host.
            network: makes the connections.
        """
        self._choose = choose
        self._look_up = look_up
        self._network = network or httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of a host that may be reached and answers.

        Raises:
            OSError: and the others of `BROKEN`: the name is not known, or no address answers by then.
            Exception: what `choose` raises.
        """

        def connect(address: str, seconds: float) -> httpcore.NetworkStream:
            return self._network.connect_tcp(address, port, seconds, local_address, socket_options)

        assert timeout is not None, "each request has a deadline"
        stream = dial(host, port, timeout, connect, choose=self._choose, look_up=self._look_up)
        return KeptStream(TimedStream(stream))
