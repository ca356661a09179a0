"""Waits for PostgreSQL's notifications, over a connection that does nothing else."""

import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Engine

STOP_CHECK_S = 1.0


@contextmanager
def listening(engine: Engine, *channels: str) -> Iterator[Any]:
    """Listen on channels. Yields psycopg2's connection, for `wait`.

    Parameters:
        engine: its connections must be direct: LISTEN does not work through PgBouncer in transaction mode.

    Raises:
        sqlalchemy.exc.DBAPIError: the database cannot be reached. psycopg2's own errors may come, too.
    """
    connection = engine.raw_connection()
    try:
        psycopg: Any = connection.driver_connection
        psycopg.autocommit = True
        with closing(psycopg.cursor()) as cursor:
            for channel in channels:
                cursor.execute(f"LISTEN {channel}")
        yield psycopg
    finally:
        # A connection that listens must not go back to the pool.
        connection.invalidate()
        connection.close()


def wait(notifications: Any, seconds: float, stopping: threading.Event) -> None:
    """Wait for a notification, and take all that have come.

    Parameters:
        notifications: what `listening` yields.
        seconds: how long at most.
        stopping: when it is set, the wait ends within a second.
    """
    ends_at = time.monotonic() + seconds
    readable: Sequence[Any] = ()
    while not readable and not stopping.is_set() and (left := ends_at - time.monotonic()) > 0:
        readable, _, _ = select.select([notifications], [], [], min(STOP_CHECK_S, left))
    notifications.poll()
    notifications.notifies.clear()
