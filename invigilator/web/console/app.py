"""Puts the console together."""

import secrets
from functools import partial
from http import HTTPStatus

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from db import resharding
from db.errors import brief
from events.errors import InvigilatorError
from events.publisher import Publisher
from invigilator.acts.actor import Role
from invigilator.acts.effects import WrongFilterError
from invigilator.web.console.doors import routes
from invigilator.web.console.guards import Headers, Origin, check_form
from invigilator.web.console.oidc import SESSION_S, OpenIdConnect, Provider
from invigilator.web.console.pages import DOORS
from invigilator.web.console.rendering import HERE, HOME, refusal, render
from invigilator.web.console.running import Runner
from invigilator.web.console.signin import Nobody, ProxyHeaders, SignIn
from invigilator.web.console.site import Site
from invigilator.web.reading import reading
from invigilator.web.shared_facts import SharedFacts
from invigilator.web.tokens import is_loopback
from worker.errors import ConfigurationError
from worker.health import facts
from worker.logs import get_logger
from worker.settings import PREFIX, Settings, host_and_port
from worker.wiring import broker_url

logger = get_logger(__name__)

SOURCE = "/invigilator/console"
COOKIE = "invigilator"
# A browser keeps a cookie of this name only if this host has set it over TLS, so no neighbour can put one there.
SECURE_COOKIE = f"__Host-{COOKIE}"


def read_sign_in(settings: Settings) -> SignIn | None:
    """Return how people sign in to the console. None where there is no console.

    Raises:
        ConfigurationError: the address that browsers use is not known.
    """
    roles = {group: Role(role) for group, role in settings.web_roles.items()}
    is_local = is_loopback(host_and_port(settings.web_address)[0])
    if settings.web_trusted_proxies:
        return ProxyHeaders(settings.web_trusted_proxies, roles)
    if settings.web_oidc_issuer is None:
        return Nobody() if is_local else None
    if settings.web_url is None and not is_local:
        raise ConfigurationError(
            f"{PREFIX}WEB_URL: must say which address browsers use, because the provider sends people back there"
        )
    assert settings.web_oidc_client_id is not None
    assert settings.web_oidc_client_secret is not None
    provider = Provider(
        issuer=settings.web_oidc_issuer,
        client_id=settings.web_oidc_client_id,
        client_secret=settings.web_oidc_client_secret.get_secret_value(),
        scope=settings.web_oidc_scope,
        roles_claim=settings.web_oidc_roles_claim,
        redirect_uri=f"{settings.web_url or f'http://{settings.web_address}'}{HOME}signed-in",
    )
    return OpenIdConnect(provider, roles, HOME)


def make_console(engine: Engine, sign_in: SignIn, settings: Settings, runner: Runner) -> ASGIApp:
    """Return the console, to be mounted at `HOME`.

    Parameters:
        engine: of the database.
        sign_in: how people sign in.
        settings: of this process, with the address of the broker.
        runner: of acts in bulk. The caller closes it.
    """
    key = (
        settings.web_session_key.get_secret_value() if settings.web_session_key else secrets.token_urlsafe(32)
    )
    is_local = is_loopback(host_and_port(settings.web_address)[0])
    is_secure = settings.web_url.startswith("https:") if settings.web_url else not is_local
    site = Site(
        engine,
        health=SharedFacts(partial(facts.read, engine, settings)),
        known=partial(facts.of_database, engine, settings),
        publisher=partial(_publisher, engine, settings),
        runner=runner,
        notice=sign_in.notice,
        signs_out=isinstance(sign_in, OpenIdConnect),
    )
    app = Starlette(
        routes=[
            Mount("/static", StaticFiles(directory=HERE / "static")),
            *(_of_provider(sign_in) if isinstance(sign_in, OpenIdConnect) else []),
            *routes(DOORS, site, sign_in),
        ],
        middleware=[
            Middleware(Origin, settings.web_url, local=isinstance(sign_in, Nobody)),
            Middleware(
                SessionMiddleware,
                secret_key=key,
                session_cookie=SECURE_COOKIE if is_secure else COOKIE,
                max_age=SESSION_S,
                same_site="lax",  # the provider sends people back from its own site
                https_only=is_secure,
            ),
        ],
        exception_handlers={
            HTTPException: _on_http_error,
            InvigilatorError: _on_refusal,
            WrongFilterError: _on_wrong_filter,
            DBAPIError: _on_database_error,
            Exception: _on_error,
        },
    )
    return Headers(app)


def _publisher(engine: Engine, settings: Settings) -> Publisher:
    with reading(engine) as connection:
        # The number that the database holds decides where the broker does not say.
        shards = resharding.read(connection).number or settings.command_shards
    return Publisher(broker_url(settings), source=SOURCE, assumed_shards=shards)


def _of_provider(sign_in: OpenIdConnect) -> list[BaseRoute]:
    """The routes of a sign-in, which are open to everybody."""

    async def sign_out(request: Request) -> Response:
        if person := sign_in.person(request):
            form = await request.form(max_files=0)
            check_form(request, person.name, str(form.get("csrf", "")))
        request.session.clear()
        return RedirectResponse(f"{HOME}signed-out", HTTPStatus.SEE_OTHER)

    async def signed_out(_request: Request) -> Response:
        return render("signed_out.html", {})

    return [
        Route("/sign-in", sign_in.start),
        Route("/signed-in", sign_in.finish),
        Route("/sign-out", sign_out, methods=["POST"]),
        Route("/signed-out", signed_out),
    ]


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = (
        error.detail if error.detail != status.phrase else "There is no such page. Begin at the overview."
    )
    return refusal(status, detail)


async def _on_refusal(_request: Request, error: Exception) -> Response:
    return refusal(HTTPStatus.CONFLICT, f"{error}.")


async def _on_wrong_filter(_request: Request, error: Exception) -> Response:
    return refusal(HTTPStatus.BAD_REQUEST, f"{error}.")


async def _on_database_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, DBAPIError)
    logger.warning("the database cannot answer", reason=brief(error))
    return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot answer now. Load the page again.")


async def _on_error(_request: Request, _error: Exception) -> Response:
    detail = "Something unexpected has happened. The log of `invigilator web` has the details."
    return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
