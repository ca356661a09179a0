"""How the command line reaches the database."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from db import connect
from worker.engines import resolve
from worker.settings import Settings, load


@contextmanager
def open_engine(settings: Settings | None = None, *, writes: bool = True) -> Iterator[Engine]:
    """An engine on the configured database, or on the embedded one that is running.

    Parameters:
        settings: after `worker.engines.resolve`; by default they are read from the environment.
        writes: False for a caller that only reads. A standby is good enough for it.

    Raises:
        ConfigurationError: no database is configured or running.
    """
    resolved = settings or resolve(load(), broker=False)
    assert resolved.database_url is not None
    url = resolved.database_url.get_secret_value()
    engine = connect.make_engine(url, application_name="invigilator cli", writes=writes)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def reading(settings: Settings | None = None) -> Iterator[Connection]:
    """A read-only connection. All its queries see the database at one moment."""
    with open_engine(settings, writes=False) as engine, connect.reading(engine) as connection:
        yield connection
