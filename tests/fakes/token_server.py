"""An OAuth 2 token server on a free port of 127.0.0.1. oauthlib judges the requests, and makes the answers."""

import json
from base64 import b64decode
from http import HTTPStatus
from itertools import count
from typing import Any
from urllib.parse import unquote_plus

from oauthlib.oauth2 import BackendApplicationServer, RequestValidator

from invigilator.demo.reference.http_server import HttpRequest, HttpResponse, HttpServer


class TokenServer(HttpServer):
    """Gives one client `token-1`, `token-2` and so on. `asked` holds the requests, `expires_in` is in seconds."""

    def __init__(self, client_id: str, client_secret: str, *, expires_in: int = 3600) -> None:
        super().__init__()
        self.asked: list[HttpRequest] = []
        numbers = count(1)
        self._endpoint = BackendApplicationServer(
            _OneClient(client_id, client_secret),
            token_generator=lambda _: f"token-{next(numbers)}",
            token_expires_in=lambda _: expires_in,  # oauthlib would replace 0
        )

    def answer(self, request: HttpRequest) -> HttpResponse:
        self.asked.append(request)
        headers, body, status = self._endpoint.create_token_response(
            f"{self.url}{request.path}", "POST", request.body.decode(), dict(request.headers.items())
        )
        del headers["Content-Type"]  # the server sets it
        return HttpResponse(HTTPStatus(status), json.loads(body), headers)


class _OneClient(RequestValidator):
    """Knows one client, which may have every scope."""

    def __init__(self, client_id: str, client_secret: str) -> None:
        self._client = (client_id, client_secret)

    def authenticate_client(self, request: Any, *args: Any, **kwargs: Any) -> bool:
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        name, _, secret = b64decode(encoded).decode().partition(":")
        request.client = type("Client", (), {"client_id": name})()
        return scheme == "Basic" and (unquote_plus(name), unquote_plus(secret)) == self._client

    def validate_grant_type(self, client_id: str, grant_type: str, *args: Any, **kwargs: Any) -> bool:
        return grant_type == "client_credentials"

    def get_default_scopes(self, client_id: str, *args: Any, **kwargs: Any) -> list[str]:
        return []

    def validate_scopes(self, client_id: str, scopes: list[str], *args: Any, **kwargs: Any) -> bool:
        return True

    def save_bearer_token(self, token: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        """Keep nothing: the test knows which tokens there are."""
