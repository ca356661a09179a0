"""Engines for tests: started once for a pytest session, stopped with it, even when it is killed."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url

from db.connect import make_engine
from db.migrate import upgrade
from invigilator.local import postgres, valkey
from invigilator.local.guard import Guard
from invigilator.local.server import Server, Watch, unwatched
from worker.errors import ConfigurationError

TEMPLATE = "template_migrated"
MEMORY = Path("/dev/shm")
ROOM_BYTES = 2**32
"""The engines' folders are in memory if it has so much room. All of a session together take less than 1 GiB."""


@contextmanager
def running_postgres() -> Iterator[Server]:
    """A throw-away PostgreSQL that does not wait for the disk, with the migrated template."""
    with _running(lambda folder, watch: start_postgres(folder, durable=False, watch=watch)) as server:
        try:
            yield server
        finally:
            _administration(server.url).dispose()


def start_postgres(folder: Path, *, durable: bool = True, watch: Watch = unwatched) -> Server:
    """Start PostgreSQL on a folder, as `postgres.start` does. The database of an empty folder is migrated."""
    if not (folder / "data").exists():
        give_database(folder)
    return postgres.start(folder, durable=durable, watch=watch)


def give_database(folder: Path) -> None:
    """Copy a migrated database, with the migrated template beside it, to a folder where PostgreSQL then starts.

    To set one up and to migrate it twice costs 3.4 s of CPU time, and a copy 0.1 s.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    prepared = _prepared(postgres.binary("initdb"))
    subprocess.run(["cp", "-Rp", prepared / "data", prepared / "password", folder], check=True)


@cache
def _prepared(initdb: Path) -> Path:
    """The folder that is copied: one for each PostgreSQL that is used, as long as this process lives."""
    resources = ExitStack()
    atexit.register(resources.close)
    folder = resources.enter_context(engine_folder()) / "prepared"
    with starter(lambda folder, watch: postgres.start(folder, durable=False, watch=watch)) as start:
        url = start(folder).url
        upgrade(url)
        administration = database_named(url, "postgres")
        _on_server(administration, f"CREATE DATABASE {TEMPLATE} TEMPLATE {make_url(url).database}")
        _administration(administration).dispose()
    return folder


@contextmanager
def running_valkey() -> Iterator[Server]:
    """A throw-away Valkey."""
    with _running(lambda folder, watch: valkey.start(folder, watch=watch)) as server:
        yield server


@contextmanager
def _running(start: Callable[[Path, Watch], Server]) -> Iterator[Server]:
    with engine_folder() as folder, starter(start) as started:
        yield started(folder)


@contextmanager
def engine_folder() -> Iterator[Path]:
    """A temporary folder for an engine: where TMPDIR says, or else in memory if there is room.

    Each test's database is 300 files. Where many files were removed a moment ago, ext4 searches long for room for
    new ones: a database costs 0.03 s of CPU time in memory, and 0.1 to 0.5 s on a disk.
    """
    fits = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    parent = MEMORY if fits and "TMPDIR" not in os.environ else None
    with tempfile.TemporaryDirectory(prefix="invigilator-test-", dir=parent) as folder:
        yield Path(folder)


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


def for_django(url: str) -> dict[str, object]:
    """Django's settings of a database."""
    server = make_url(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": server.database,
        "HOST": server.host,
        "PORT": server.port,
        "USER": server.username,
        "PASSWORD": server.password,
    }


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
    with _administration(server_url).connect() as connection:
        connection.execute(text(statement))


@cache
def _administration(server_url: str) -> Engine:
    """Keeps one connection to a server: each new one costs as much CPU time as the database that it creates."""
    return create_engine(server_url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, pool_size=1)
