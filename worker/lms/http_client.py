"""Carries calls to the LMS, and keeps their deadlines.

A synchronous HTTP client cannot keep a deadline. Its time-outs apply to each read, so a server that sends one
byte a second never exceeds them. Therefore the calls run on an event loop in a thread of its own. There a
deadline cancels the whole call at any point: name look-up, connect, headers or body.
"""

import threading
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ssl import SSLContext, create_default_context
from typing import TypeVar

import anyio
import httpx

from worker.errors import ConfigurationError, Misconfigured, Unavailable
from worker.lms.credentials import Credentials
from worker.lms.http_answers import PROXY_SETTING, Answer
from worker.lms.loop import LoopThread
from worker.lms.ports import Deadline
from worker.urls import read_url

MAX_BODY_BYTES = 64 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """A call to the LMS. `str()` gives what may be told of it.

    Parameters:
        method: GET or POST.
        path: below the base URL.
        headers: those of this call.
        params: the query.
        json: the body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    params: Mapping[str, str] | None = None
    json: Mapping[str, str | None] | None = None

    def __str__(self) -> str:
        # The parameters and the body are personal data, so they stay out.
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Network:
    """What stands between us and the LMS.

    Parameters:
        tls: the certificates that we trust, and our own.
        proxy: the proxy that every call goes through, the one to a token server included.
        headers: what a gateway wants to see in each call to the LMS. A token server does not get them.
    """

    tls: SSLContext = field(default_factory=create_default_context)
    proxy: httpx.Proxy | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class HttpClient:
    """Makes calls with a pool of connections. Many threads may use it at the same time.

    The client ignores the environment's proxies and follows no redirects.
    """

    def __init__(self, base_url: str, credentials: Credentials, network: Network) -> None:
        """Check the URL. The first call starts the thread and connects.

        Raises:
            ConfigurationError: the URL cannot work.
        """
        self._base_url = checked_url(base_url, "INVIGILATOR_LMS_URL")
        self._credentials = credentials
        self._network = network
        self._start_lock = threading.Lock()
        self._running: _Running | None = None

    def send(self, call: Call, deadline: Deadline) -> tuple[Answer, str | None]:
        """Make a call. A refused token is fetched anew once, where one can be fetched.

        Parameters:
            call: what to send.
            deadline: of everything: the token, the call, and the second one.

        Returns:
            the answer, and the token that it answers, which no message may repeat.

        Raises:
            Unavailable: there is no answer, or no token.
            Misconfigured: the proxy or the token server refuses us.
        """
        deadline.check(str(call))
        running = self._started()
        return running.loop.run(self._send(running.http, call, deadline))

    async def _send(
        self, http: httpx.AsyncClient, call: Call, deadline: Deadline
    ) -> tuple[Answer, str | None]:
        token = await self._token(http, deadline)
        answer = await self._answer(http, call, token, deadline)
        if answer.status == HTTPStatus.UNAUTHORIZED and self._credentials.renew(token):
            token = await self._token(http, deadline)
            answer = await self._answer(http, call, token, deadline)
        return answer, token

    async def _token(self, http: httpx.AsyncClient, deadline: Deadline) -> str | None:
        return await within(deadline, "the token server", self._credentials.token(http))

    async def _answer(
        self, http: httpx.AsyncClient, call: Call, token: str | None, deadline: Deadline
    ) -> Answer:
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        headers = {**self._network.headers, **call.headers, **bearer}
        return await within(deadline, str(call), self._exchange(http, call, headers))

    async def _exchange(self, http: httpx.AsyncClient, call: Call, headers: Mapping[str, str]) -> Answer:
        request = http.stream(call.method, call.path, params=call.params, json=call.json, headers=headers)
        try:
            async with request as response:
                return await read_answer(response)
        except (httpx.TransportError, OSError) as error:
            raise _no_answer(call, error) from None

    def close(self) -> None:
        """Close the connections and end the thread. No call may be running."""
        with self._start_lock:
            if self._running is not None:
                self._running.loop.run(self._running.http.aclose())
                self._running.loop.close()
                self._running = None

    def _started(self) -> "_Running":
        with self._start_lock:
            if self._running is None:
                http = httpx.AsyncClient(
                    base_url=self._base_url,
                    headers={
                        "User-Agent": "invigilator",
                        "Accept": "application/json",
                        "Accept-Encoding": "identity",  # MAX_BODY_BYTES then bounds the memory of an answer
                    },
                    verify=self._network.tls,
                    proxy=self._network.proxy,
                    timeout=httpx.Timeout(None),  # the deadline covers all of it
                    limits=httpx.Limits(max_connections=None),  # as many as there are threads that call
                    trust_env=False,
                    follow_redirects=False,
                )
                self._running = _Running(LoopThread("lms-http"), http)
            return self._running


@dataclass(frozen=True, slots=True)
class _Running:
    loop: LoopThread
    http: httpx.AsyncClient


async def within(deadline: Deadline, what: str, work: Awaitable[T]) -> T:
    """Wait for work, and cancel it at the deadline.

    Raises:
        Unavailable: the deadline has passed; `what` took so long.
    """
    try:
        # Not asyncio.timeout(): with its kind of cancellation, httpx's pool sometimes leaks a connection (seen).
        with anyio.fail_after(deadline.remaining_s()):
            return await work
    except TimeoutError:
        raise deadline.late(what) from None


async def read_answer(response: httpx.Response) -> Answer:
    """Read an answer, and of a long body only the beginning. The caller closes the response."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    retry_after = response.headers.get("Retry-After")
    return Answer(response.status_code, retry_after, bytes(body[:MAX_BODY_BYTES]))


def _no_answer(call: Call, error: Exception) -> Unavailable:
    # A proxy that is asked for a tunnel answers before there is an HTTP answer of the LMS.
    if isinstance(error, httpx.ProxyError) and str(error).startswith("407"):
        return Misconfigured(f"the proxy answered 407 to {call}", setting=PROXY_SETTING, status=407)
    # Only the class is shown, because the text may quote a header, and with it the token.
    cause = type(first_cause(error)).__name__
    return Unavailable(f"no answer from the LMS to {call} ({cause}); check INVIGILATOR_LMS_URL")


def first_cause(error: BaseException) -> BaseException:
    """Return the error that led to this one."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def checked_url(url: str, setting: str, *, query: bool = False) -> httpx.URL:
    """Read a URL that calls go to.

    Parameters:
        url: as the setting has it.
        setting: the setting's name.
        query: whether it may have a query.

    Raises:
        ConfigurationError: it cannot work. The message does not quote it.
    """
    without = "user or fragment" if query else "user, query or fragment"
    allowed = f"{setting} must be http(s)://host[:port][/path], without {without}"
    try:
        read = read_url(url)
    except ValueError:
        raise ConfigurationError(allowed) from None
    if read.query and not query:
        raise ConfigurationError(allowed)
    return read
