"""Counting how often a client waits for PostgreSQL."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from db.connect import make_engine
from tests.chaos.proxy import proxying

_READY = re.compile(rb"Z\x00\x00\x00\x05[ITE]")
"""What ends PostgreSQL's answer to one request (ReadyForQuery)."""


@contextmanager
def counted(
    database_url: str, *, pre_ping: bool, autocommit: bool = False, session_settings: str = ""
) -> Iterator[tuple[Engine, Callable[[], int]]]:
    """An engine, and what tells how many round trips it has made since it was asked last."""
    with proxying(database_url) as proxy:
        engine = make_engine(
            proxy.url(database_url),
            application_name="counted",
            pre_ping=pre_ping,
            autocommit=autocommit,
            session_settings=session_settings,
        )

        def trips() -> int:
            count = len(_READY.findall(proxy.answers))
            proxy.answers.clear()
            return count

        try:
            yield engine, trips
        finally:
            engine.dispose()
