"""A console that somebody signs in to by a proxy's headers, for tests."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, create_engine
from starlette.testclient import TestClient

from invigilator.acts.actor import Role
from invigilator.web.console.app import make_console, read_sign_in
from invigilator.web.console.rendering import HOME
from invigilator.web.console.running import Runner
from worker.settings import Settings

PROXY = "10.1.2.3"


def settings(**given: Any) -> Settings:
    """The settings of a process, without an environment."""
    return Settings(_env_file=None, **{"broker_url": "redis://127.0.0.1:1", **given})


def no_database() -> Engine:
    """An engine that fails when somebody asks it."""
    return create_engine("postgresql+psycopg2://127.0.0.1:1/none?connect_timeout=1")


def client(
    engine: Engine, given: Settings, *, address: str = PROXY, base_url: str = "https://console.example"
) -> TestClient:
    """A browser that calls the console from an address."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    sign_in = read_sign_in(given)
    assert sign_in is not None
    app = Starlette(routes=[Mount(HOME, make_console(engine, sign_in, given, Runner()))])
    return TestClient(app, base_url=base_url, client=(address, 50_000), follow_redirects=False)


def behind_proxy(engine: Engine, role: Role | None, name: str = "ada", **given: Any) -> TestClient:
    """A browser of somebody whom a proxy has signed in."""
    found = client(engine, settings(web_trusted_proxies="10.1.0.0/16", **given))
    found.headers.update(of_person(name, role))
    return found


def of_person(name: str, role: Role | None) -> Mapping[str, str]:
    """The headers by which a proxy says who somebody is."""
    groups = "staff" if role is None else f"staff, invigilator-{role}"
    return {"X-Forwarded-User": name, "X-Forwarded-Groups": groups}
