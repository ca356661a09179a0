"""Carries calls to the LMS: the token, the headers of a gateway, the proxy, and what is said when one fails."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from ssl import SSLContext, create_default_context
from urllib.parse import quote, urlencode

import httpcore
import httpx
import orjson

from worker import tracing
from worker.errors import ConfigurationError, Misconfigured, Unavailable
from worker.lms.credentials import Credentials
from worker.lms.http_answers import PROXY_SETTING, Answer
from worker.lms.ports import Deadline
from worker.lms.streams import BROKEN
from worker.lms.transport import Request, connections, exchange, first_cause
from worker.urls import read_url

HEADERS = {
    "User-Agent": "invigilator",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # the bytes that are read then bound the memory of an answer
}
"""Of every request, unless a gateway wants another value."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call to the LMS. `str()` gives what may be told of it.

    Parameters:
        method: GET or POST.
        path: below the base URL, not encoded.
        headers: those of this call.
        params: the query.
        json: the body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    params: Mapping[str, str] | None = None
    json: Mapping[str, str | None] | None = None

    def within(self, span: tracing.Span) -> "Call":
        """Return the call as a part of a span, whose trace it carries on."""
        if span.traceparent is None:
            return self
        return replace(self, headers={**self.headers, "traceparent": span.traceparent})

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
        """Check the URL. The first call connects.

        Raises:
            ConfigurationError: the URL cannot work.
        """
        self._base_url = checked_url(base_url, "INVIGILATOR_LMS_URL")
        self._base_path = self._base_url.raw_path.rstrip(b"/")
        self._credentials = credentials
        replaced = {name.lower() for name in network.headers}
        ours = {name: value for name, value in HEADERS.items() if name.lower() not in replaced}
        self._headers = {**ours, **network.headers}
        self._pool = connections(network.tls, network.proxy)

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
        attributes = {
            "http.request.method": call.method,
            "server.address": self._base_url.host,
            "server.port": self._base_url.port,
            "url.template": call.path,
        }
        parent = call.headers.get("traceparent")
        with tracing.span(str(call), tracing.Kind.CLIENT, parent, attributes) as span:
            answer, token = self._send(call.within(span), deadline)
            span.note({"http.response.status_code": answer.status})
            if answer.status >= HTTPStatus.BAD_REQUEST:
                span.fail(str(answer.status))
            return answer, token

    def _send(self, call: Call, deadline: Deadline) -> tuple[Answer, str | None]:
        token = self._credentials.token(self._pool, deadline)
        answer = self._answer(call, token, deadline)
        if answer.status == HTTPStatus.UNAUTHORIZED and self._credentials.renew(token):
            token = self._credentials.token(self._pool, deadline)
            answer = self._answer(call, token, deadline)
        return answer, token

    def _answer(self, call: Call, token: str | None, deadline: Deadline) -> Answer:
        headers = {**self._headers, **call.headers}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        body = None
        if call.json is not None:
            headers["Content-Type"] = "application/json"
            body = orjson.dumps(call.json)
        query = f"?{urlencode(call.params)}" if call.params else ""
        target = self._base_path + f"{quote(call.path)}{query}".encode("ascii")
        request = Request.to(self._base_url, call.method, headers, body, target)
        try:
            return exchange(self._pool, request, deadline, str(call))
        except BROKEN as error:
            raise no_answer(error, str(call), f"the LMS to {call}", "INVIGILATOR_LMS_URL") from None

    def close(self) -> None:
        """Close the connections. No call may be running."""
        self._pool.close()


def no_answer(error: Exception, request: str, peer: str, setting: str) -> Unavailable:
    """Return what to raise when there was no answer.

    Parameters:
        error: one of `BROKEN`.
        request: what was sent, as the error names it.
        peer: who did not answer.
        setting: says where it is.
    """
    # A proxy that is asked for a tunnel answers before there is an HTTP answer of the other side.
    if isinstance(error, httpcore.ProxyError) and str(error).startswith("407"):
        return Misconfigured(f"the proxy answered 407 to {request}", setting=PROXY_SETTING, status=407)
    # Only the class is shown, because the text may quote a header, and with it the token.
    cause = type(first_cause(error)).__name__
    return Unavailable(f"no answer from {peer} ({cause}); check {setting}")


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
    if b"?" in read.raw_path and not query:
        raise ConfigurationError(allowed)
    return read
