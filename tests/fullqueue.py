"""PostgreSQL's queue of notifications, kept full by a session of somebody else's application."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import psycopg2
from sqlalchemy.engine import make_url

from invigilator.local import postgres
from invigilator.local.server import Server
from tests.engines import running_postgres

HOLDER = "somebody else's reports"
PAGES = 64  # the fewest that PostgreSQL takes
FILL = "SELECT pg_notify('filler', repeat('x', 7900) || number) FROM generate_series(1, 10) AS number"


@contextmanager
def small_queue_postgres() -> Iterator[Server]:
    """A throw-away PostgreSQL whose queue holds half a megabyte."""
    with patch.dict(postgres.CARELESS, {"max_notify_queue_pages": str(PAGES)}), running_postgres() as server:
        yield server


@contextmanager
def full_queue(url: str) -> Iterator[int]:
    """Keep the queue full until the end of the block. Yields the process id of the session that does."""
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    holder = psycopg2.connect(address, application_name=HOLDER)
    filler = psycopg2.connect(address)
    try:
        with holder.cursor() as cursor:
            cursor.execute("LISTEN anything")
            holder.commit()
            cursor.execute("SELECT 1")  # and then it stands still in its transaction
        fill(filler)
        yield holder.info.backend_pid
    finally:
        filler.close()
        holder.close()


def fill(connection: psycopg2.extensions.connection) -> None:
    for _ in range(PAGES):
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(FILL)
        except psycopg2.errors.ProgramLimitExceeded:
            return
    raise AssertionError("PostgreSQL's queue takes more than it should")
