"""Deliveries: the effects that bring events to webhooks, and which of the webhooks are switched off.

Locks are taken in this order: effects by sequence, circuits, the rows of subscribers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db import prepared, totals
from db.recordset import Row, recordset
from db.states import EffectState
from db.subscribers import BEHIND, Standing, standings
from db.wake import EFFECTS_CHANNEL, POSITIONS_CHANNEL, notification
from events.cloudevent import Event

PREFIX = "webhook."
"""The names of subscribers that are webhooks begin with it."""

# --- fan-out -----------------------------------------------------------------------------------------------

# The lock is the fence: another relay passes over the row. A webhook that is off gets no deliveries.
_LOCK_CURSOR = """
SELECT
    position,
    (
        SELECT count(*)
        FROM effects
        WHERE state = 'pending'
            AND kind = 'deliver_event'
            AND due_at <= statement_timestamp()
            AND subscriber = subscribers.name
    ) AS due,
    set_config('idle_in_transaction_session_timeout', '5s', true)
FROM subscribers
WHERE name = %(name)s AND position IS NOT NULL AND off_since IS NULL
FOR UPDATE OF subscribers SKIP LOCKED
"""

# The rows are inserted in the order of the events, so `sequence` tells it.
_FAN_OUT = f"""
WITH owed AS (
    INSERT INTO effects (
        id, kind, state, attempt_id, user_id, order_key, payload, source, command_id, event_id, subscriber,
        traceparent
    )
    SELECT
        one.id,
        'deliver_event',
        'pending',
        (SELECT id FROM attempts WHERE coalesce(attempt_code, id::text) = one.attempt_code),
        one.user_id,
        one.order_key,
        one.payload,
        one.source,
        one.command_id,
        one.event_id,
        %(name)s,
        one.traceparent
    FROM json_to_recordset(%(deliveries)s) AS one (
        number int, id uuid, attempt_code text, user_id text, order_key text, payload jsonb, source text,
        command_id text, event_id uuid, traceparent text
    )
    ORDER BY one.number
    RETURNING id
), moved AS (
    UPDATE subscribers
    SET position = %(position)s, failing_since = NULL, reason = NULL
    WHERE name = %(name)s
)
SELECT {notification(EFFECTS_CHANNEL)} WHERE EXISTS (SELECT FROM owed)
"""  # noqa: S608 - no values


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a webhook has come."""

    position: int
    due: int
    """How many of its deliveries are due and wait for a call."""


def lock_cursor(connection: Connection, name: str) -> Cursor | None:
    """Lock a webhook's cursor, and return where it stands.

    None if the webhook is off, or does not subscribe, or another process has the lock.
    """
    found = connection.exec_driver_sql(_LOCK_CURSOR, {"name": name}).first()
    return None if found is None else Cursor(found.position, found.due)


def fan_out(connection: Connection, name: str, deliveries: Sequence[Row], position: int) -> None:
    """Owe deliveries, in order, and move the cursor that the caller has locked.

    Parameters:
        name: of the subscriber.
        deliveries: with the members that the statement names, except for `number`.
        position: of the last event that was looked at.
    """
    rows = [{**one, "number": number} for number, one in enumerate(deliveries)]
    connection.exec_driver_sql(_FAN_OUT, {"name": name, "deliveries": recordset(rows), "position": position})


# --- one delivery ------------------------------------------------------------------------------------------

# The columns after the definition are those of an `Event`, in its order.
_OWED = """
SELECT
    effects.id,
    effects.subscriber,
    subscribers.definition,
    events.id, events.position, events.type, events.time, events.subject, events.user_id, events.traceparent,
    events.data
FROM effects
LEFT JOIN subscribers ON subscribers.name = effects.subscriber
LEFT JOIN events ON events.id = effects.event_id
WHERE effects.id = ANY (%(ids)s::uuid[]) AND effects.subscriber IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Owed:
    """What a delivery brings to whom."""

    subscriber: str
    definition: dict[str, Any] | None
    """What the relay has read of the subscriber. None if nobody subscribes under this name any more."""
    event: Event | None
    """None if the log does not have it any more."""


def owed(connection: Connection, effect_ids: Sequence[UUID]) -> dict[UUID, Owed]:
    """Return what deliveries bring to whom, by effect. Those that are no deliveries are missing.

    Parameters:
        connection: in no transaction, or one in which each statement has a snapshot of its own.
    """
    found = _find_owed(connection, effect_ids)
    # Who has waited while rows moved to another partition (`db.partitions`) looks with a snapshot of before, in
    # which they are in neither place.
    again = [one for one in effect_ids if one not in found or found[one].event is None]
    return found | _find_owed(connection, again) if again else found


def _find_owed(connection: Connection, effect_ids: Sequence[UUID]) -> dict[UUID, Owed]:
    # By place: a mapping of each row would take more CPU than everything else here.
    rows = prepared.execute(connection, _OWED, {"ids": list(effect_ids)})
    return {
        effect_id: Owed(name, definition, None if event[0] is None else Event(*event))
        for effect_id, name, definition, *event in map(tuple, rows)
    }


# --- off and on --------------------------------------------------------------------------------------------

# The circuit goes, too: a webhook that is off is not probed.
_SWITCH_OFF = """
WITH closed AS (
    DELETE FROM circuits WHERE queue = %(name)s
)
UPDATE subscribers
SET off_since = coalesce(off_since, clock_timestamp()), reason = %(reason)s
WHERE name = %(name)s
"""

# As a person's retry of each: the time for which they are tried begins anew. Locked by sequence, as everywhere.
_WAKE = """
UPDATE effects
SET due_at = clock_timestamp(), offered_until = NULL, retrying_since = NULL, tries_forgiven = tries
WHERE id = ANY (ARRAY(
    SELECT id FROM effects WHERE subscriber = %(name)s AND state = 'pending' ORDER BY sequence FOR UPDATE
))
"""

_SWITCH_ON = f"""
UPDATE subscribers
SET off_since = NULL, reason = NULL
WHERE name = %(name)s
RETURNING {notification(EFFECTS_CHANNEL)}, {notification(POSITIONS_CHANNEL)}
"""  # noqa: S608 - no values


def switch_off(connection: Connection, name: str, reason: str) -> bool:
    """Switch a webhook off: what it is owed stays pending, and nobody calls it.

    Returns whether there is such a webhook.
    """
    return connection.exec_driver_sql(_SWITCH_OFF, {"name": name, "reason": reason}).rowcount > 0


def switch_on(connection: Connection, name: str) -> bool:
    """Switch a webhook on. What it is owed is due now. Returns whether there is such a webhook."""
    connection.exec_driver_sql(_WAKE, {"name": name})
    return connection.exec_driver_sql(_SWITCH_ON, {"name": name}).rowcount > 0


# --- the end -----------------------------------------------------------------------------------------------

_ORPHANS = """
SELECT id, kind, state
FROM effects
WHERE subscriber IS NOT NULL
    AND state IN ('pending', 'failed')
    AND NOT EXISTS (SELECT FROM subscribers WHERE name = effects.subscriber)
ORDER BY sequence
FOR UPDATE
"""

_CANCEL = """
UPDATE effects
SET state = 'cancelled', offered_until = NULL, dropped_at = clock_timestamp()
WHERE id = ANY (%(ids)s::uuid[])
"""


_FORGET_CIRCUITS = """
DELETE FROM circuits
WHERE starts_with(queue, 'webhook.') AND NOT EXISTS (SELECT FROM subscribers WHERE name = circuits.queue)
"""


def cancel_orphans(connection: Connection) -> int:
    """Cancel the open deliveries to those who subscribe no more. Returns how many there were.

    One that runs now is left to its worker. If its try fails, the next one finds that nobody subscribes.
    """
    found = connection.exec_driver_sql(_ORPHANS).all()
    connection.exec_driver_sql(_CANCEL, {"ids": [row.id for row in found]})
    connection.exec_driver_sql(_FORGET_CIRCUITS)
    totals.add(connection, totals.moved(found, EffectState.CANCELLED))
    return len(found)


# --- a person ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a webhook stands."""

    name: str
    definition: dict[str, Any]
    off_since: datetime | None
    reason: str | None
    behind: int
    """How many events were not made into deliveries yet. Those that it does not ask for are among them."""
    pending: int
    failed: int


_ENDPOINTS = f"""
SELECT
    name,
    definition,
    off_since,
    reason,
    {BEHIND} AS behind,
    (SELECT count(*) FROM effects WHERE subscriber = name AND state IN ('pending', 'running')) AS pending,
    (SELECT count(*) FROM effects WHERE subscriber = name AND state = 'failed') AS failed
FROM subscribers
WHERE starts_with(name, 'webhook.')
ORDER BY name
"""  # noqa: S608 - no values


def feeds(connection: Connection) -> list[Standing]:
    """Return how each subscriber stands who has a cursor and is no webhook, by name."""
    return [one for one in standings(connection) if not one.name.startswith(PREFIX)]


def endpoints(connection: Connection) -> list[Endpoint]:
    """Return how each webhook stands, by name."""
    return [Endpoint(**one._mapping) for one in connection.exec_driver_sql(_ENDPOINTS)]
