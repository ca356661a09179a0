"""Sign-in by OpenID Connect: the authorization code flow with PKCE, by Authlib."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth, StarletteOAuth2App
from httpx2 import HTTPError
from joserfc.errors import JoseError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invigilator.acts.actor import Role
from invigilator.web.console.people import Person, is_name, role_of
from invigilator.web.console.signin import NO_ROLE
from worker.logs import get_logger

logger = get_logger(__name__)

SESSION_S = 8 * 3600
"""Seconds for which a sign-in holds. A role that was taken away holds as long, too."""
TIMEOUT_S = 10
LEEWAY_S = 60
"""How far the provider's clock may be off."""

# Public keys only. With "none" or a shared secret among them, somebody else could have made an accepted token.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_PERSON = "person"
_NEXT = "next"


@dataclass(frozen=True, slots=True)
class Provider:
    """The settings of a provider.

    Parameters:
        issuer: its address, as its tokens name it.
        client_id: our name there.
        client_secret: our secret there.
        scope: what is asked for.
        roles_claim: the claim of the ID token that holds the groups.
        redirect_uri: where the provider sends people back to.
    """

    issuer: str
    client_id: str
    client_secret: str
    scope: str
    roles_claim: str
    redirect_uri: str


class OpenIdConnect:
    """Signs people in at a provider.

    Parameters:
        provider: which one.
        roles: groups that give a role besides ours.
        home: the path of the console.
    """

    notice: str | None = None

    def __init__(self, provider: Provider, roles: Mapping[str, Role], home: str) -> None:
        self._provider = provider
        self._roles = roles
        self._home = home
        registered = OAuth().register(
            "provider",
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            server_metadata_url=f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": provider.scope,
                "code_challenge_method": "S256",
                "timeout": TIMEOUT_S,
            },
        )
        assert isinstance(registered, StarletteOAuth2App)
        self._app = registered

    def person(self, request: Request) -> Person | None:
        """Return the person of the session."""
        found = request.session.get(_PERSON)
        if found is None or time.time() - found["since"] > SESSION_S:
            return None
        origin = request.client.host if request.client else None
        return Person(found["name"], Role(found["role"]), origin)

    async def start(self, request: Request) -> Response:
        """Send somebody to the provider."""
        asked = request.query_params.get("next", "")
        request.session.clear()  # whatever was there belongs to nobody now
        request.session[_NEXT] = asked if self._is_ours(asked) else self._home
        try:
            await self._load()
            return await self._app.authorize_redirect(request, self._provider.redirect_uri)  # type: ignore[no-any-return]
        except (AuthlibBaseError, HTTPError, ValueError) as error:
            raise self._failed(error) from None

    async def finish(self, request: Request) -> Response:
        """Take the answer of the provider, and sign in whom it names.

        Raises:
            HTTPException: the answer is none of this session, or not the provider's, or the person has no role.
        """
        try:
            await self._load()
            # Checks the state, the signature, the nonce, the issuer, the audience and the times.
            token = await self._app.authorize_access_token(
                request, claims_options=self._claims(), leeway=LEEWAY_S
            )
        except (AuthlibBaseError, JoseError, HTTPError, ValueError) as error:
            raise self._failed(error) from None
        claims = token.get("userinfo")
        if claims is None:
            raise self._failed(ValueError("the answer has no ID token"))
        person = self._read(claims)
        path = request.session.get(_NEXT, self._home)
        request.session.clear()  # a session that somebody else has begun is not gone on with
        request.session[_PERSON] = {"name": person.name, "role": person.role.value, "since": time.time()}
        return RedirectResponse(path, HTTPStatus.SEE_OTHER)

    def _is_ours(self, path: str) -> bool:
        return path.startswith(self._home) and "\\" not in path and path.isprintable()

    async def _load(self) -> None:
        metadata = await self._app.load_server_metadata()
        if metadata.get("issuer") != self._provider.issuer:
            raise ValueError("the provider calls itself by another name than INVIGILATOR_WEB_OIDC_ISSUER")
        offered = metadata.get("id_token_signing_alg_values_supported", ["RS256"])
        metadata["id_token_signing_alg_values_supported"] = [one for one in offered if one in _ALGORITHMS]

    def _claims(self) -> dict[str, Any]:
        return {
            "iss": {"essential": True, "values": [self._provider.issuer]},
            "aud": {"essential": True, "values": [self._provider.client_id]},
            "sub": {"essential": True},
            "exp": {"essential": True},
            "nonce": {"essential": True},
        }

    def _read(self, claims: Mapping[str, Any]) -> Person:
        groups = claims.get(self._provider.roles_claim, [])
        groups = groups.split() if isinstance(groups, str) else groups
        if not isinstance(groups, list):
            groups = []
        role = role_of((one for one in groups if isinstance(one, str)), self._roles)
        if role is None:
            raise HTTPException(HTTPStatus.FORBIDDEN, NO_ROLE)
        # People may choose the name that they like to be called by. Only `sub` says who it is.
        called, subject = claims.get("preferred_username"), claims["sub"]
        name = f"{called} ({subject})" if called and called != subject else str(subject)
        if not is_name(name):
            raise HTTPException(HTTPStatus.FORBIDDEN, "The provider gives you a name that cannot be stored.")
        return Person(name, role, None)

    def _failed(self, error: Exception) -> HTTPException:
        # Its text may quote what somebody has sent.
        logger.warning("a sign-in has failed", reason=type(error).__name__)
        return HTTPException(
            HTTPStatus.BAD_REQUEST,
            "The sign-in did not work. Begin again; if that does not help, see the log.",
        )
