"""The event log: written with the change, numbered after its commit, read by position.

docs/decisions/0034-the-event-log.md has the reasons.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from db import prepared
from db.recordset import Row, recordset
from db.wake import EVENTS_CHANNEL, POSITIONS_CHANNEL, notification
from events.cloudevent import Event
from events.event_types import EventData

NUMBERED_AT_ONCE = 1_000
READ_AT_ONCE = 500
PAGE_ROWS = 1_000

# --- writing -----------------------------------------------------------------------------------------------

# Rows are inserted in their order, so the identity column tells the order of what they tell.
INSERT_EVENTS = """
    INSERT INTO events (id, type, time, subject, user_id, traceparent, data)
    SELECT * FROM json_to_recordset(%(events)s) AS event (
        id uuid, type text, time timestamptz, subject text, user_id text, traceparent text, data jsonb
    )
"""

_WRITE = f"WITH written AS ({INSERT_EVENTS}) SELECT {notification(EVENTS_CHANNEL)}"


def row(
    event_id: UUID,
    data: EventData,
    time: datetime,
    *,
    subject: str | None = None,
    user_id: str | None = None,
    traceparent: str | None = None,
) -> Row:
    """Return an event as a row of its table.

    Parameters:
        time: the moment of handling.
        subject: the attempt's code.
        user_id: the learner in whose order it is.
        traceparent: the trace of the command that it follows from.
    """
    return {
        "id": event_id,
        "type": data.event_type,
        "time": time,
        "subject": subject,
        "user_id": user_id,
        "traceparent": traceparent,
        "data": data.model_dump(),
    }


def write(connection: Connection, rows: Sequence[Row]) -> None:
    """Write events in the caller's transaction, and wake the relays when it commits.

    A batch does not need this: it writes its events with everything else.
    """
    if rows:
        connection.exec_driver_sql(_WRITE, {"events": recordset(rows)})


# --- numbering ---------------------------------------------------------------------------------------------

# The lock makes this the one numberer until the transaction ends. Who waits for the lock would see the events of
# before the wait, so they are looked at in a second statement.
#
# The last position counts only if this run of the server gave it, into this file of the table. Otherwise the
# database may be a backup, whose subscribers have seen later positions, so the clock counts if it is ahead.
_LOCK_LOG = """
WITH this AS MATERIALIZED (
    SELECT
        extract(epoch FROM pg_postmaster_start_time())::text || ' ' || pg_relation_filenode('event_log')
            AS server_run
)
SELECT
    CASE
        WHEN event_log.server_run = this.server_run THEN event_log.position
        ELSE greatest(event_log.position, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
    END AS position,
    this.server_run,
    set_config('idle_in_transaction_session_timeout', '5s', true)
FROM event_log, this
FOR UPDATE OF event_log
"""

_NUMBER = f"""
WITH unnumbered AS MATERIALIZED (
    SELECT sequence, row_number() OVER (ORDER BY sequence) AS number
    FROM (
        SELECT sequence FROM events WHERE position IS NULL ORDER BY sequence LIMIT %(rows)s
    ) AS oldest
), numbered AS (
    UPDATE events
    SET position = %(position)s + unnumbered.number
    FROM unnumbered
    WHERE events.sequence = unnumbered.sequence AND events.position IS NULL
), moved AS (
    UPDATE event_log
    SET position = %(position)s + (SELECT count(*) FROM unnumbered), server_run = %(server_run)s
    WHERE EXISTS (SELECT FROM unnumbered)
    RETURNING {notification(POSITIONS_CHANNEL)}
)
SELECT (SELECT count(*) FROM unnumbered) AS number, (SELECT count(*) FROM moved) AS moved
"""  # noqa: S608 - no values


def number(connection: Connection) -> int:
    """Give the events that are committed and have none the next positions, in the caller's transaction.

    Returns how many it has numbered. There may be more when that is `NUMBERED_AT_ONCE`.
    """
    log = prepared.execute(connection, _LOCK_LOG, {}).one()
    values = {"position": log.position, "server_run": log.server_run, "rows": NUMBERED_AT_ONCE}
    return int(prepared.execute(connection, _NUMBER, values).one().number)


# --- reading -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of the log."""

    pruned_to: int
    """The last position that was removed. What comes after it is all there."""
    position: int
    """The last position that was given."""


_ENDS = "SELECT pruned_to, position FROM event_log"

READ = """
SELECT json_agg(event ORDER BY event.position)::text
FROM (
    SELECT id, position, type, time, subject, user_id, traceparent, data
    FROM events
    WHERE position > %(after)s
    ORDER BY position
    LIMIT %(rows)s
) AS event
"""
"""Reads the next events after a position as one JSON text, for `events_of`."""


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of the log, and the log as it was at that moment.

    Parameters:
        ends: the two ends of the log.
        is_kept: whether the log is kept for who asks.
        after: the position behind which the piece begins.
        events: in order. None of them if the position is outside of the log, or if no log is kept.
    """

    ends: Ends
    is_kept: bool
    after: int
    events: Sequence[Event]


_PAGE = """
SELECT log.pruned_to, log.newest, log.is_kept, log.after, event.*
FROM (
    SELECT
        pruned_to,
        position AS newest,
        EXISTS (SELECT FROM subscribers WHERE name = %(subscriber)s) AS is_kept,
        coalesce(%(after)s, pruned_to) AS after
    FROM event_log
) AS log
LEFT JOIN LATERAL (
    SELECT id, position, type, time, subject, user_id, traceparent, data
    FROM events
    WHERE events.position > log.after
    ORDER BY position
    LIMIT %(rows)s
) AS event ON log.is_kept AND log.after BETWEEN log.pruned_to AND log.newest
ORDER BY event.position
"""
_OF_LOG = ("pruned_to", "newest", "is_kept", "after")


def ends(connection: Connection) -> Ends:
    """Return the two ends of the log."""
    found = connection.exec_driver_sql(_ENDS).one()
    return Ends(pruned_to=found.pruned_to, position=found.position)


def read(connection: Connection, after: int, rows: int = READ_AT_ONCE) -> list[Event]:
    """Return the next events after a position, in order.

    Parameters:
        rows: how many at most.
    """
    return events_of(prepared.execute(connection, READ, {"after": after, "rows": rows}).scalar_one())


def events_of(found: str | None) -> list[Event]:
    """Return the events in what `READ` returns."""
    return [] if found is None else [_event(one) for one in orjson.loads(found)]


def _event(row: dict[str, Any]) -> Event:
    return Event(**row | {"id": UUID(row["id"]), "time": datetime.fromisoformat(row["time"])})


def page(connection: Connection, subscriber: str, after: int | None, rows: int) -> Page:
    """Return the next events after a position, in order.

    Parameters:
        subscriber: for whom the log must be kept.
        after: the position. None for the oldest that is kept.
        rows: how many at most.
    """
    values = {"subscriber": subscriber, "after": after, "rows": rows}
    found = [one._asdict() for one in connection.exec_driver_sql(_PAGE, values)]
    events, log = [], {}
    for row in found:
        log = {name: row.pop(name) for name in _OF_LOG}
        events += [] if row["id"] is None else [Event(**row)]
    return Page(Ends(log["pruned_to"], log["newest"]), log["is_kept"], log["after"], events)


# --- pruning -----------------------------------------------------------------------------------------------

_LIMIT_WAITS = "SELECT set_config('lock_timeout', '1s', true)"

# A person may set a cursor back at the same time. Who waits for the lock would see the cursors of before the wait,
# so they are looked at in a second statement.
_LOCK_ENDS = "SELECT FROM event_log FOR UPDATE"

# What is left has no holes, so that whoever reads on from `pruned_to` misses nothing. A subscriber without a cursor
# holds nothing back.
_PRUNE = """
WITH page AS MATERIALIZED (
    SELECT id, position, time
    FROM events
    WHERE position > (SELECT pruned_to FROM event_log)
        AND position <= (
            SELECT least(position, (SELECT min(position) FROM subscribers)) FROM event_log
        )
    ORDER BY position
    LIMIT %(rows)s
), kept AS MATERIALIZED (
    SELECT min(page.position) AS position
    FROM page
    WHERE page.time >= clock_timestamp() - %(age)s
        OR EXISTS (
            SELECT FROM effects
            WHERE effects.event_id = page.id AND effects.state IN ('pending', 'running', 'failed')
        )
), removed AS (
    DELETE FROM events
    WHERE id = ANY (ARRAY(
        SELECT page.id
        FROM page, kept
        WHERE kept.position IS NULL OR page.position < kept.position
    ))
    RETURNING position
), moved AS (
    UPDATE event_log
    SET pruned_to = (SELECT max(position) FROM removed)
    WHERE EXISTS (SELECT FROM removed)
), noted AS (
    INSERT INTO pruned (what, before)
    SELECT 'events', clock_timestamp() - %(age)s
    WHERE EXISTS (SELECT FROM removed)
    ON CONFLICT (what) DO UPDATE SET before = greatest(pruned.before, excluded.before)
)
SELECT count(*) FROM removed
"""


def prune(connection: Connection, age: timedelta) -> int:
    """Remove a page of events that are older than that, and that every subscriber has passed.

    An event with an open delivery stays, and all events after it.

    Returns how many were removed. There may be more when that is `PAGE_ROWS`.
    """
    connection.exec_driver_sql(_LIMIT_WAITS)
    connection.exec_driver_sql(_LOCK_ENDS)
    return int(connection.exec_driver_sql(_PRUNE, {"age": age, "rows": PAGE_ROWS}).scalar_one())


# What lies before the log's beginning is nobody's any more, but for deliveries.
_PRUNE_REST = """
DELETE FROM events_rest
WHERE id = ANY (ARRAY(
    SELECT id
    FROM events_rest AS event
    WHERE position <= (SELECT pruned_to FROM event_log)
        AND time < clock_timestamp() - %(age)s
        AND NOT EXISTS (
            SELECT FROM effects
            WHERE effects.event_id = event.id AND effects.state IN ('pending', 'running', 'failed')
        )
    ORDER BY position
    LIMIT %(rows)s
))
"""


def prune_rest(connection: Connection, age: timedelta) -> int:
    """Remove a page of the events from before the log's beginning that have no period, but those with an open
    delivery. Returns how many were removed. There may be more when that is `PAGE_ROWS`."""
    connection.exec_driver_sql(_LIMIT_WAITS)
    return connection.exec_driver_sql(_PRUNE_REST, {"age": age, "rows": PAGE_ROWS}).rowcount
