"""Who may make a call, and how often."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from urllib.parse import urlsplit

from fastapi import Request
from starlette.requests import HTTPConnection

from invigilator.web.problems import ProblemCode, ProblemError
from invigilator.web.tokens import ANYBODY, Caller, Scope, Tokens, is_loopback

_OF_PROXIES = ("cf-connecting-ip", "forwarded", "true-client-ip", "via", "x-client-ip", "x-real-ip")
_FORWARDED = "x-forwarded-"
_SCHEME = "bearer"
_WITH_SIGN_IN = {"WWW-Authenticate": "Bearer"}


@dataclass(slots=True)
class Bucket:
    """A token bucket: it takes so many calls a second, and as many at once after a second without any.

    Parameters:
        rate: calls a second.
        clock: returns seconds that never go back.
    """

    rate: float
    clock: Callable[[], float] = time.monotonic
    _left: float = field(init=False)
    _seen_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._left, self._seen_at = self.rate, self.clock()

    def take(self) -> float:
        """Take one call. Returns 0, or the seconds after which there is room for one."""
        now = self.clock()
        self._left = min(self.rate, self._left + (now - self._seen_at) * self.rate)
        self._seen_at = now
        if self._left < 1:
            return (1 - self._left) / self.rate
        self._left -= 1
        return 0


class Access:
    """Knows the caller of a request.

    Parameters:
        tokens: the file's, or None where everybody on this machine may call.
        rate: calls a second of each caller.
    """

    def __init__(self, tokens: Tokens | None, rate: float) -> None:
        self._tokens = tokens
        self._rate = rate
        self._buckets: dict[str, Bucket] = {}

    def needs(self, scope: Scope) -> Callable[[Request], Awaitable[Caller]]:
        """Return a dependency of FastAPI that yields the caller, who has a scope.

        The dependency raises `ProblemError`: `unauthorized`, `not_allowed` or `rate_limited`.
        """

        async def caller(request: Request) -> Caller:
            found = self._local(request) if self._tokens is None else self._named(request, self._tokens)
            wait_s = self._buckets.setdefault(found.name, Bucket(self._rate)).take()
            if wait_s:
                raise ProblemError(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    ProblemCode.RATE_LIMITED,
                    f"at most {self._rate:g} calls a second; wait as Retry-After says",
                    {"Retry-After": str(ceil(wait_s))},
                )
            if scope not in found.scopes:
                raise ProblemError(
                    HTTPStatus.FORBIDDEN,
                    ProblemCode.NOT_ALLOWED,
                    f"the token has not the scope {scope}; add it to its scopes in the file of API tokens",
                )
            return found

        return caller

    def _local(self, request: Request) -> Caller:
        # A page in a browser on this machine can send requests here under a name of its own (DNS rebinding).
        if not is_loopback(_host(request)):
            raise _unauthorized("without a file of API tokens, call it as 127.0.0.1 or localhost")
        if is_forwarded(request):
            raise _unauthorized(
                "the request came through a proxy, so it may be anybody's: use a file of API tokens"
            )
        return ANYBODY

    def _named(self, request: Request, tokens: Tokens) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != _SCHEME:
            raise _unauthorized("send the header `Authorization: Bearer TOKEN`")
        caller = tokens.find(token.strip())
        if caller is None:
            raise _unauthorized("the token is not known; make one with `invigilator token new NAME`")
        return caller


def is_forwarded(request: HTTPConnection) -> bool:
    """Return whether a proxy says that it has passed a request on. Then it may come from another machine."""
    return any(name in _OF_PROXIES or name.startswith(_FORWARDED) for name in request.headers)


def _host(request: Request) -> str:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.UNAUTHORIZED, ProblemCode.UNAUTHORIZED, detail, _WITH_SIGN_IN)
