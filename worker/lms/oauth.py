"""Access tokens from a token server, by the client credentials grant of OAuth 2 (RFC 6749, section 4.4).

The request goes over the connections of the call that waits for it, so it has the same deadline, proxy and
certificates (docs/decisions/0033).
"""

import threading
import time
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import quote_plus, urlencode

import httpcore
from pydantic import BaseModel, BeforeValidator, FiniteFloat, ValidationError

from worker.errors import Misconfigured, ServiceError, Unavailable
from worker.lms.credentials import is_sendable
from worker.lms.http_answers import PROXY_SETTING, Answer, is_transient, reason, retry_after_s
from worker.lms.http_client import HEADERS, checked_url, no_answer
from worker.lms.ports import Deadline
from worker.lms.streams import BROKEN
from worker.lms.transport import Request, exchange

URL_SETTING = "INVIGILATOR_LMS_OAUTH_TOKEN_URL"
TOKEN_SERVER = "the token server"  # noqa: S105 - no password
CLIENT_SETTINGS = "INVIGILATOR_LMS_OAUTH_CLIENT_ID, …_CLIENT_SECRET and …_SCOPE"


class _TokenAnswer(BaseModel):
    """What a token server answers (RFC 6749, section 5.1). Other fields are ignored."""

    access_token: str
    token_type: Annotated[Literal["bearer"], BeforeValidator(lambda value: str(value).lower())] = "bearer"  # noqa: S105 - no password
    expires_in: FiniteFloat | None = None
    """Seconds. None when the server does not say: then the token counts until it is refused."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    ends_at: float  # time.monotonic()


class ClientCredentials:
    """Credentials that are exchanged for access tokens.

    A token is used until it expires, or until the LMS refuses it. One call fetches it while the others wait.
    """

    setting = CLIENT_SETTINGS

    def __init__(self, token_url: str, client_id: str, client_secret: str, scope: str | None = None) -> None:
        """Check the settings. Nothing is fetched before the first call.

        Parameters:
            token_url: the token endpoint of the server.
            client_id: the name by which that server knows us.
            client_secret: our password there. Both are sent by HTTP Basic, which every token server must take.
            scope: the scopes to ask for, separated by spaces. None asks for the server's default.

        Raises:
            ConfigurationError: the URL cannot work.
        """
        self._secret = client_secret
        # The standard wants both percent-encoded before they are joined (section 2.3.1).
        basic = b64encode(f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode("ascii"))
        headers = {
            **HEADERS,
            "Authorization": f"Basic {basic.decode('ascii')}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        asked = {} if scope is None else {"scope": scope}
        body = urlencode({"grant_type": "client_credentials", **asked}).encode("ascii")
        self._request = Request.to(checked_url(token_url, URL_SETTING, query=True), "POST", headers, body)
        self._lock = threading.Lock()
        self._token: _Token | None = None

    def token(self, pool: httpcore.ConnectionPool, deadline: Deadline) -> str:
        """Return the token that is known, or fetch one.

        Raises:
            Unavailable: the token server does not answer.
            Misconfigured: it refuses us, or what it answers is no token.
        """
        if not self._lock.acquire(timeout=deadline.remaining_s()):
            raise deadline.late(TOKEN_SERVER)
        try:
            token = self._token  # `renew` may take it away at any time
            if token is None or token.ends_at <= time.monotonic():
                token = self._token = self._fetch(pool, deadline)
            return token.text
        finally:
            self._lock.release()

    def renew(self, refused: str | None) -> bool:
        """Forget the token, unless another call has fetched a newer one. Return True."""
        known = self._token
        if known is not None and known.text == refused:
            self._token = None
        return True

    def _fetch(self, pool: httpcore.ConnectionPool, deadline: Deadline) -> _Token:
        asked_at = time.monotonic()
        answer = self._ask(pool, deadline)
        if not 200 <= answer.status <= 299:
            raise self._refusal(answer)
        try:
            given = _TokenAnswer.model_validate_json(answer.body)
        except ValidationError as error:
            raise _no_token(error) from None
        if not is_sendable(given.access_token):
            raise Misconfigured(
                f"{TOKEN_SERVER} answered with a token that no header can carry", setting=URL_SETTING
            )
        lasts_s = float("inf") if given.expires_in is None else given.expires_in
        return _Token(given.access_token, asked_at + lasts_s)

    def _ask(self, pool: httpcore.ConnectionPool, deadline: Deadline) -> Answer:
        try:
            return exchange(pool, self._request, deadline, TOKEN_SERVER)
        except BROKEN as error:
            raise no_answer(error, "the request for a token", TOKEN_SERVER, URL_SETTING) from None

    def _refusal(self, answer: Answer) -> ServiceError:
        why = reason(answer.body, [self._secret])
        shown = f" ({why})" if why is not None else ""
        message = f"{TOKEN_SERVER} answered {answer.status}{shown}"
        if is_transient(answer.status):
            wait_s = retry_after_s(answer.retry_after, datetime.now(UTC))
            return Unavailable(message, retry_after_s=wait_s, status=answer.status, reason=why)
        is_proxy = answer.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        setting = PROXY_SETTING if is_proxy else f"{URL_SETTING}, {CLIENT_SETTINGS}"
        return Misconfigured(message, setting=setting, status=answer.status, reason=why)


def _no_token(error: ValidationError) -> Misconfigured:
    where = error.errors(include_url=False, include_context=False, include_input=False)[0]["loc"]
    what = f"no usable `{where[0]}`" if where else "no JSON object"
    return Misconfigured(f"{TOKEN_SERVER} answered with {what}", setting=URL_SETTING)
