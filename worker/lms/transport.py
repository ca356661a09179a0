"""Carries HTTP requests, each within a deadline that covers all of it.

A synchronous client's time-outs apply to each read, so a server that sends one byte a second never exceeds them.
httpcore leaves the reading to a *network backend*. Ours takes the time-outs of a request for moments, and gives
each wait the time that is left until then. An event loop would keep deadlines, too, but handing each call over to
its thread and back took most of what a call costs (docs/decisions/0053).
"""

import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import httpcore
import httpx

from worker.lms.cut_off import cut_off
from worker.lms.dialing import Choose, LookUp, dial, left_s, look_up
from worker.lms.http_answers import Answer
from worker.lms.ports import Deadline

MAX_BODY_BYTES = 64 * 1024

KEEP_S = 5.0
"""Seconds for which a connection that nobody uses is kept."""

WRITE_BYTES = 4096
"""So many bytes are written at once: a socket that is ready to be written takes them all."""

BROKEN = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError, OSError)
"""What a connection that does not work raises."""

Done = TypeVar("Done")


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
        httpcore.NetworkError: and the others of `BROKEN`: there is no connection, or no whole answer.
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
                body = b"".join(_beginning(response))
            else:
                # httpcore looks for the time-out of reading when the body begins.
                timeouts["read"] = min(deadline.ends_at, time.monotonic() + body_s)
                body = b"".join(_until_it_breaks(_beginning(response)))
    except httpcore.TimeoutException:
        raise deadline.late(what) from None
    fields = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    return Answer(response.status, fields.get(b"retry-after"), body)


def _beginning(response: httpcore.Response) -> Iterator[bytes]:
    left = MAX_BODY_BYTES
    for chunk in response.iter_stream():
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


def _until_it_breaks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    with suppress(*BROKEN, httpcore.TimeoutException):
        yield from chunks


def first_cause(error: BaseException) -> BaseException:
    """Return the error that led to this one."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


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
            httpcore.ConnectTimeout: the moment has passed.
            httpcore.ConnectError: no address answers.
            OSError: the name is not known.
            Exception: what `choose` raises.
        """

        def connect(address: str, seconds: float) -> httpcore.NetworkStream:
            return self._network.connect_tcp(address, port, seconds, local_address, socket_options)

        assert timeout is not None, "each request has a deadline"
        try:
            stream = dial(host, port, timeout, connect, choose=self._choose, look_up=self._look_up)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        return _Stream(stream)


class _Stream(httpcore.NetworkStream):
    """A connection. Each of its waits ends at a moment."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.wait(timeout, httpcore.ReadTimeout, partial(self._stream.read, max_bytes))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_BYTES):
            piece = buffer[start : start + WRITE_BYTES]
            self.wait(timeout, httpcore.WriteTimeout, partial(self._stream.write, piece))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = _CutOffStream(self._stream) if self.get_extra_info("ssl_object") else self
        start = partial(self._stream.start_tls, ssl_context, server_hostname)
        return type(inner)(inner.wait(timeout, httpcore.ConnectTimeout, start))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def wait(
        self, ends_at: float | None, late: type[httpcore.TimeoutException], work: Callable[[float], Done]
    ) -> Done:
        assert ends_at is not None, "each request has a deadline"
        try:
            left = left_s(ends_at)
        except TimeoutError:
            raise late from None
        return work(left)


class _CutOffStream(_Stream):
    """TLS within TLS, which httpcore reads in a loop of its own: many waits, each with the same time-out."""

    def wait(
        self, ends_at: float | None, late: type[httpcore.TimeoutException], work: Callable[[float], Done]
    ) -> Done:
        def within(left: float) -> Done:
            with cut_off(self.get_extra_info("socket"), left):
                try:
                    return work(left)
                except httpcore.NetworkError:
                    left_s(ends_at or 0)
                    raise

        try:
            return super().wait(ends_at, late, within)
        except TimeoutError:
            raise late from None
