"""A log with something in it, and what a listener has heard of it."""

from datetime import UTC, datetime
from itertools import count
from uuid import UUID

from sqlalchemy import Connection, Engine

from db import event_log
from db.recordset import Row
from events.event_types import MessageQuarantined

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)

_ids = count(1)


def news(user_id: str | None = None, size: int = 0, time: datetime = NOW) -> Row:
    """An event, as a row of the log. Its `size` tells it from others."""
    data = MessageQuarantined(quarantine_id=None, code=None, source=None, id=None, size=size)
    return event_log.row(UUID(int=next(_ids)), data, time, user_id=user_id)


def tell(engine: Engine, *sizes: int) -> None:
    """Commit events."""
    with engine.begin() as connection:
        event_log.write(connection, [news(size=size) for size in sizes])


def number(engine: Engine) -> int:
    with engine.begin() as connection:
        return event_log.number(connection)


def log(connection: Connection, after: int = 0) -> list[tuple[int, int]]:
    """(position, size) of each numbered event."""
    return [(one.position, one.data["size"]) for one in event_log.read(connection, after, rows=100_000)]
