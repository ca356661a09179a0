"""Puts the application together."""

from importlib.metadata import version

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from sqlalchemy import Engine
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invigilator.web import (
    attempts,
    commands,
    effects,
    events,
    health,
    metrics,
    openapi,
    problems,
    sending,
    timeline,
)
from invigilator.web.access import Access
from invigilator.web.bodies import SigningKey
from invigilator.web.console.rendering import HOME
from invigilator.web.followers import Followers
from invigilator.web.health import Readiness
from invigilator.web.metrics import Metrics
from invigilator.web.outcomes import Outcomes
from invigilator.web.reading import Reader
from invigilator.web.sending import CommandSink


def make_app(
    *,
    engine: Engine,
    reader: Reader,
    publisher: CommandSink,
    outcomes: Outcomes,
    followers: Followers,
    access: Access,
    signing_key: SigningKey,
    readiness: Readiness,
    scraped: Metrics,
    event_source: str,
    console: ASGIApp | None = None,
) -> FastAPI:
    """Return the application. The caller looks out for `outcomes` and `followers`.

    Parameters:
        event_source: the `source` of the events.
        console: the pages for people. None where nobody could sign in.
    """
    app = FastAPI(
        title="Invigilator",
        version=version("invigilator"),
        description="The record of online exam attempts: commands in, and what has become of them.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy it would redirect to http, and the token would follow in the clear
    )
    problems.install(app)
    openapi.install(app)
    app.add_middleware(_NoStore)
    app.include_router(health.routes(readiness))
    app.include_router(metrics.routes(scraped))
    app.include_router(attempts.routes(reader, access))
    app.include_router(commands.routes(reader, access))
    app.include_router(effects.routes(engine, access))
    app.include_router(timeline.routes(reader, access))
    app.include_router(events.routes(reader, followers, access, event_source))
    app.include_router(sending.routes(publisher, outcomes, access, signing_key))
    if console is not None:
        app.mount(HOME, console)
        for path in ("/", HOME.rstrip("/")):
            app.add_api_route(path, _to_console, include_in_schema=False)
    return app


async def _to_console() -> RedirectResponse:
    return RedirectResponse(HOME)


class _NoStore:
    """Has every answer say that nobody may keep it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, send_on)
