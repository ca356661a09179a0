"""What protects the console from other pages in the browser: headers, the origin of requests, and form tokens."""

import hmac
import secrets
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invigilator.web.console.rendering import refusal
from invigilator.web.tokens import is_loopback

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FORM_TOKEN = "csrf"  # noqa: S105 - a name
MAX_FORM_BYTES = 256 * 1024
_HARMLESS = frozenset({"GET", "HEAD"})


class Headers:
    """Has every answer tell the browser to load nothing from elsewhere, and to show it in no other page.

    A header that a page has set itself stays.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_on)


class Origin:
    """Refuses requests for another host, and those that another site has the browser send.

    A page in a browser may send requests here under a name of its own (DNS rebinding), or with the cookies of ours.

    Parameters:
        url: the address that browsers use. None where requests say it themselves, behind a proxy.
        local: whether only browsers on this machine may come.
    """

    def __init__(self, app: ASGIApp, url: str | None, *, local: bool) -> None:
        self._app = app
        self._url = url
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app if scope["type"] != "http" else self._judge(HTTPConnection(scope), scope["method"])
        await app(scope, receive, send)

    def _judge(self, request: HTTPConnection, method: str) -> ASGIApp:
        host = request.headers.get("host", "").lower()
        expected = urlsplit(self._url).netloc.lower() if self._url else host
        if host != expected or (self._local and not is_loopback(_name(host))):
            return refusal(
                HTTPStatus.MISDIRECTED_REQUEST, "The console is not at this address: see INVIGILATOR_WEB_URL."
            )
        if method in _HARMLESS:
            return self._app
        if not self._is_ours(request, expected):
            return refusal(HTTPStatus.FORBIDDEN, "The request was sent by a page of another site.")
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_FORM_BYTES:
            return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The form is too large: choose fewer.")
        return self._app

    def _is_ours(self, request: HTTPConnection, host: str) -> bool:
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        if site is not None:
            # Our pages tell no referrer, and so browsers say "null" of the origin of their forms.
            return site == "same-origin" and origin in (None, "null", origin_of(self._url, host, origin))
        return origin is None or origin == origin_of(self._url, host, origin)


def origin_of(url: str | None, host: str, origin: str | None) -> str:
    """Return the origin of our own pages.

    Parameters:
        url: the address that browsers use. Without it the scheme is believed that `origin` says.
        host: to which a request was sent.
        origin: what the request says.
    """
    return url or f"{urlsplit(origin or '').scheme}://{host}"


def form_token(request: Request, name: str) -> str:
    """Return the token that the forms of a person's pages hold.

    Parameters:
        request: whose session keeps it.
        name: of the person. Behind a proxy, another one may go on with a session.
    """
    kept = request.session.get(_FORM_TOKEN)
    if kept is None or kept["name"] != name:
        kept = request.session[_FORM_TOKEN] = {"name": name, "token": secrets.token_urlsafe(32)}
    return str(kept["token"])


def check_form(request: Request, name: str, token: str) -> None:
    """Make sure that a form is one of the person's pages.

    Raises:
        HTTPException: it is not.
    """
    kept = request.session.get(_FORM_TOKEN)
    if (
        kept is None
        or kept["name"] != name
        or not hmac.compare_digest(kept["token"].encode(), token.encode())
    ):
        raise HTTPException(
            HTTPStatus.FORBIDDEN,
            "The form is from before your present sign-in. Nothing was changed. Go back, load the page again, and "
            "send the form once more.",
        )


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
