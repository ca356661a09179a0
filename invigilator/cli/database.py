"""The command line's way to the database."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, text

from db.connect import make_engine
from worker.engines import resolve
from worker.settings import Settings, load

LOCK_TIMEOUT = "5s"


@contextmanager
def open_engine(settings: Settings | None = None, *, writes: bool = True) -> Iterator[Engine]:
    """An engine on the database that is configured, or on the embedded one that is up.

    Parameters:
        settings: resolved ones; by default they are read from the environment.
        writes: False for who only reads, which a standby allows, too.

    Raises:
        ConfigurationError: there is none.
    """
    resolved = settings or resolve(load(), broker=False)
    assert resolved.database_url is not None
    url = resolved.database_url.get_secret_value()
    engine = make_engine(url, application_name="invigilator cli", writes=writes)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def reading(settings: Settings | None = None) -> Iterator[Connection]:
    """A connection that sees one moment of the database, however many queries are made on it."""
    with open_engine(settings, writes=False) as engine, engine.connect() as connection:
        yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that gives up rather than wait long for somebody else's lock."""
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        yield connection
