"""The subscribers of the event log: who they are, how far they have come, and which process serves them."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from db import prepared
from db.event_log import NUMBERED_AT_ONCE, READ, READ_AT_ONCE, events_of, number
from db.recordset import recordset
from db.wake import POSITIONS_CHANNEL, notification
from events.cloudevent import Event

Definitions = Mapping[str, Mapping[str, Any]]
"""What the file of subscriptions says of each subscriber, by name, without secrets."""


@dataclass(frozen=True, slots=True)
class Tenure:
    """Proves that a process serves a subscriber: only the holder of the newest epoch may move the cursor."""

    name: str
    owner: str
    epoch: int


# --- who they are ------------------------------------------------------------------------------------------

# It waits for whoever has locked a row: they may need the table for their next statement.
_LOCK = "LOCK TABLE subscribers IN EXCLUSIVE MODE"

_NAMES = "SELECT name FROM subscribers ORDER BY name"

_DEFINITIONS = "SELECT name, definition FROM subscribers"

_REMOVE = "DELETE FROM subscribers WHERE NOT name = ANY (%(names)s::text[]) RETURNING name"

# A new subscriber begins at the end. One that stays keeps its cursor, whatever else has changed.
_STORE = """
INSERT INTO subscribers (name, definition, position)
SELECT name, definition, CASE WHEN has_cursor THEN (SELECT position FROM event_log) END
FROM json_to_recordset(%(subscribers)s) AS subscriber (name text, definition jsonb, has_cursor bool)
ON CONFLICT (name) DO UPDATE SET definition = excluded.definition
"""


def store(
    connection: Connection, definitions: Definitions, without_cursor: Collection[str] = ()
) -> list[str]:
    """Store who subscribes. Takes out whoever is not among them, with the cursor, and returns their names.

    Parameters:
        definitions: all subscribers.
        without_cursor: the names of those who remember by themselves how far they have come.
    """
    # The log is locked before the subscribers, as `replay` does. What was written before they came is not for them.
    while number(connection) == NUMBERED_AT_ONCE:
        pass
    connection.exec_driver_sql(_LOCK)
    removed = connection.exec_driver_sql(_REMOVE, {"names": list(definitions)}).scalars().all()
    rows = [
        {"name": name, "definition": definition, "has_cursor": name not in without_cursor}
        for name, definition in definitions.items()
    ]
    if rows:
        connection.exec_driver_sql(_STORE, {"subscribers": recordset(rows)})
    return list(removed)


def names(connection: Connection) -> list[str]:
    """Return the names of the subscribers."""
    return list(connection.exec_driver_sql(_NAMES).scalars())


def definitions(connection: Connection) -> Definitions:
    """Return what is stored of each subscriber, by name."""
    return {one.name: one.definition for one in connection.exec_driver_sql(_DEFINITIONS)}


# --- serving one -------------------------------------------------------------------------------------------

# The epoch follows the clock, so that it is above every epoch that the broker knows, even after a restore.
_TAKE = """
UPDATE subscribers
SET owner = %(owner)s,
    epoch = greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
    lease_until = clock_timestamp() + %(lease_s)s * interval '1 s'
WHERE name = (
    SELECT name
    FROM subscribers
    WHERE name = %(name)s
        AND (lease_until IS NULL OR lease_until < clock_timestamp() OR owner = %(owner)s)
    FOR UPDATE SKIP LOCKED
)
RETURNING epoch, position
"""

# One snapshot. It may be older than a wait for a lock, so a drop may have taken events meanwhile. Then the cursor
# has moved on, and the move from this one is refused.
_READ_ON = f"""
SELECT ({READ})
FROM subscribers
WHERE name = %(name)s AND epoch = %(epoch)s AND owner = %(owner)s AND position = %(after)s
"""  # noqa: S608 - no values

# The cursor moves only from where it was read: a person may have set it back in the meantime. What was skipped last
# stays until something else is wrong.
_MOVE = """
UPDATE subscribers
SET lease_until = clock_timestamp() + %(lease_s)s * interval '1 s',
    position = CASE WHEN position = %(before)s THEN %(after)s ELSE position END,
    skipped = skipped + %(skipped)s,
    failing_since = NULL,
    reason = CASE WHEN %(note)s::text IS NULL AND failing_since IS NULL THEN reason ELSE %(note)s END
WHERE name = %(name)s AND epoch = %(epoch)s AND owner = %(owner)s
RETURNING position
"""

_RELEASE = """
UPDATE subscribers
SET owner = NULL,
    lease_until = NULL,
    failing_since = CASE WHEN %(reason)s::text IS NOT NULL THEN coalesce(failing_since, clock_timestamp()) END,
    reason = CASE WHEN %(reason)s::text IS NULL AND failing_since IS NULL THEN reason ELSE %(reason)s END
WHERE name = %(name)s AND epoch = %(epoch)s AND owner = %(owner)s
"""


def take(connection: Connection, name: str, owner: str, lease_s: float) -> tuple[Tenure, int] | None:
    """Take a subscriber that no other process serves, and raise the epoch.

    Returns the tenure and the cursor. None while another process serves it, and when there is no such subscriber.
    """
    found = connection.exec_driver_sql(_TAKE, {"name": name, "owner": owner, "lease_s": lease_s}).first()
    return None if found is None else (Tenure(name, owner, found.epoch), found.position)


def read_on(connection: Connection, tenure: Tenure, cursor: int) -> list[Event]:
    """Return the next events after the cursor; no event when it stands elsewhere or the tenure is over."""
    values = asdict(tenure) | {"after": cursor, "rows": READ_AT_ONCE}
    return events_of(prepared.execute(connection, _READ_ON, values).scalar())


def move(
    connection: Connection,
    tenure: Tenure,
    before: int,
    after: int,
    lease_s: float,
    skipped: int = 0,
    note: str | None = None,
) -> int | None:
    """Move the cursor on from where it was read, and renew the lease.

    Parameters:
        skipped: how many of the events in between the other side's format could not hold.
        note: which they are. None when there are none.

    Returns where the cursor is now, which is elsewhere after a replay was asked for. None when the tenure is over.
    """
    values = asdict(tenure) | {
        "before": before,
        "after": after,
        "lease_s": lease_s,
        "skipped": skipped,
        "note": note,
    }
    position: int | None = prepared.execute(connection, _MOVE, values).scalar()
    return position


def release(connection: Connection, tenure: Tenure, reason: str | None = None) -> None:
    """Give a subscriber back.

    Parameters:
        reason: why the other side takes no events. None when nothing is wrong.
    """
    connection.exec_driver_sql(_RELEASE, asdict(tenure) | {"reason": reason})


# --- a person ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """How a subscriber with a cursor stands."""

    name: str
    position: int
    behind: int
    """How many events it has not passed, see `BEHIND`. Those that it does not ask for are among them."""
    failing_since: datetime | None
    reason: str | None
    """Why it fails. While it does not: which events were skipped last."""
    skipped: int
    """How many events the other side's format could not hold, those of a replay counted again."""


COUNTED_BEHIND = 10_000
"""So many events are counted at most: an outage leaves millions, and `status` may not take longer for that."""

# Positions have gaps after a restore, so a difference of two is no number of events.
BEHIND = f"""least({COUNTED_BEHIND},
        (SELECT count(*) FROM (
            SELECT FROM events WHERE events.position > subscribers.position LIMIT {COUNTED_BEHIND}
        ) AS numbered)
        + (SELECT count(*) FROM (
            SELECT FROM events WHERE events.position IS NULL LIMIT {COUNTED_BEHIND}
        ) AS unnumbered)
    )"""  # noqa: S608 - no values
"""How many events a subscriber has not passed, up to `COUNTED_BEHIND`."""

_STANDINGS = f"""
SELECT
    name,
    position,
    {BEHIND} AS behind,
    failing_since,
    reason,
    skipped
FROM subscribers
WHERE position IS NOT NULL
ORDER BY name
"""  # noqa: S608 - no values

# The log's row is locked, or the events might be pruned at the same time.
_SHARE_LOG = "SELECT pruned_to, position FROM event_log FOR SHARE"

_SET = f"""
UPDATE subscribers
SET position = %(position)s
WHERE name = %(name)s AND position IS NOT NULL
RETURNING {notification(POSITIONS_CHANNEL)}
"""  # noqa: S608 - no values


def standings(connection: Connection) -> list[Standing]:
    """Return how each subscriber with a cursor stands, by name."""
    return [Standing(**one._mapping) for one in connection.exec_driver_sql(_STANDINGS)]


def replay(connection: Connection, name: str, after: int) -> str | None:
    """Set a subscriber's cursor, so that what comes after a position is told again.

    Returns why not, or None when it is done.
    """
    log = connection.exec_driver_sql(_SHARE_LOG).one()
    if not log.pruned_to <= after <= log.position:
        return f"the log has the positions after {log.pruned_to}, up to {log.position}"
    if connection.exec_driver_sql(_SET, {"name": name, "position": after}).rowcount == 0:
        known = ", ".join(one.name for one in standings(connection)) or "none"
        return f"there is no subscriber {name} with a cursor; there are: {known}"
    return None
