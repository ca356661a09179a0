"""Engines for tests: started once for a pytest session, stopped with it, even when it is killed."""

import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from db.connect import make_engine
from db.migrate import upgrade
from invigilator.local import postgres, valkey
from invigilator.local.guard import Guard
from invigilator.local.server import Server, Watch
from worker.errors import ConfigurationError

TEMPLATE = "template_migrated"


@contextmanager
def running_postgres() -> Iterator[Server]:
    """A throw-away PostgreSQL that does not wait for the disk."""
    with _running(lambda folder, watch: postgres.start(folder, durable=False, watch=watch)) as server:
        yield server


@contextmanager
def running_valkey() -> Iterator[Server]:
    """A throw-away Valkey."""
    with _running(lambda folder, watch: valkey.start(folder, watch=watch)) as server:
        yield server


@contextmanager
def _running(start: Callable[[Path, Watch], Server]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="invigilator-test-") as folder, starter(start) as started:
        yield started(Path(folder))


@contextmanager
def starter(start: Callable[[Path, Watch], Server]) -> Iterator[Callable[[Path], Server]]:
    """Starts engines on given folders; they are stopped at the end, or when the tests are killed."""
    with Guard() as guard, ExitStack() as stack:

        def started(folder: Path) -> Server:
            try:
                server = start(folder, guard.watch_engine)
            except ConfigurationError as error:
                unavailable(str(error))
            stack.callback(server.stop)
            return server

        yield started


def end(server: Server, how: signal.Signals) -> None:
    """Send an engine a signal that ends it, and wait."""
    server.process.send_signal(how)
    server.process.wait()


def unavailable(reason: str) -> NoReturn:
    """A laptop may lack an engine; CI may not."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def make_template(server_url: str) -> None:
    """Create the migrated database that all others are copied from."""
    _on_server(server_url, f"CREATE DATABASE {TEMPLATE}")
    upgrade(database_named(server_url, TEMPLATE))


@contextmanager
def fresh_database(server_url: str, template: str = TEMPLATE, encoding: str = "UTF8") -> Iterator[str]:
    """The URL of a database of its own, dropped afterwards whoever is still connected."""
    name = f"test_{uuid.uuid4().hex}"
    locale = "" if encoding == "UTF8" else f"ENCODING {encoding} LOCALE_PROVIDER libc LOCALE 'C'"
    _on_server(server_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy {locale}")
    try:
        yield database_named(server_url, name)
    finally:
        _on_server(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def database_named(server_url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def disposed(database_url: str) -> Iterator[Engine]:
    """An SQLAlchemy engine that leaves no connection behind."""
    engine = make_engine(database_url, application_name="tests")
    try:
        yield engine
    finally:
        engine.dispose()


def _on_server(server_url: str, statement: str) -> None:
    engine = create_engine(server_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()
