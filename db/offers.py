"""The outbox relay's part of an effect: which effects are due, and until when an offer to the workers stands."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from db import circuits, order, prepared
from db.pauses import PAUSED
from db.recordset import recordset


@dataclass(frozen=True, slots=True)
class Offer:
    """An effect that a worker is asked to run."""

    id: UUID
    kind: str
    payload: dict[str, Any]
    tries: int


@dataclass(frozen=True, slots=True)
class Offers:
    """Offers that were made together."""

    made: list[Offer]
    is_full: bool
    """Whether a kind has taken up all of its room, so that more of it may be due."""


@dataclass(frozen=True, slots=True)
class Due:
    """The kinds that have an effect to offer."""

    due: Sequence[str]
    lost: Sequence[str]
    """The kinds with an effect whose worker was lost: its lease has ended."""
    opened: Mapping[str, bool] = field(default_factory=dict)
    """The queues whose circuit is open, and whether each may be probed now."""

    @property
    def kinds(self) -> list[str]:
        """The kinds in `due` or `lost`, sorted."""
        return sorted({*self.due, *self.lost})


# A webhook that is off, or whose circuit is as named, is passed over. Few of its deliveries are due: the fan-out
# waits for those that are.
_CALLS_NONE_OF = """(
    effect.subscriber IS NULL OR effect.subscriber NOT IN (
        SELECT name FROM subscribers WHERE off_since IS NOT NULL
        UNION ALL
        SELECT queue FROM circuits WHERE {circuit}
    )
)"""

_MAY_BE_CALLED = _CALLS_NONE_OF.format(circuit="open_until > statement_timestamp()")
# One that may be probed gets the probe and nothing else.
_ANSWERS = _CALLS_NONE_OF.format(circuit="open_until IS NOT NULL")

# ORDER BY and LIMIT rather than EXISTS, which makes PostgreSQL expect a row soon and read the table for it. All
# pending rows of the table may be due next week.
_FIND_DUE = f"""
SELECT asked.kind, due.found IS NOT NULL AS is_due, lost.found IS NOT NULL AS is_lost, {circuits.OPENED} AS opened
FROM unnest(%(kinds)s::text[]) AS asked (kind)
LEFT JOIN LATERAL (
    SELECT true AS found
    FROM effects AS effect
    WHERE effect.state = 'pending'
        AND effect.due_at <= statement_timestamp()
        AND effect.kind = asked.kind
        AND (effect.offered_until IS NULL OR effect.offered_until <= statement_timestamp())
        AND {_MAY_BE_CALLED}
    ORDER BY effect.due_at
    LIMIT 1
) AS due ON true
LEFT JOIN LATERAL (
    SELECT true AS found
    FROM effects AS effect
    WHERE effect.state = 'running'
        AND effect.lease_until < statement_timestamp()
        AND effect.kind = asked.kind
        AND (effect.offered_until IS NULL OR effect.offered_until <= statement_timestamp())
        AND {_MAY_BE_CALLED}
    ORDER BY effect.lease_until
    LIMIT 1
) AS lost ON true
WHERE NOT asked.kind = ANY ({PAUSED})
"""  # noqa: S608 - all parts are ours

_OUTSTANDING = """
SELECT asked.kind, offered.number
FROM unnest(%(kinds)s::text[]) AS asked (kind)
CROSS JOIN LATERAL (
    SELECT count(*) AS number
    FROM effects
    WHERE state = 'pending' AND kind = asked.kind AND offered_until > statement_timestamp()
) AS offered
"""

_OFFER_DUE = f"""
UPDATE effects
SET offered_until = clock_timestamp() + %(ttl_s)s * interval '1 s'
WHERE id = ANY (ARRAY(
    SELECT oldest.id
    FROM json_to_recordset(%(rooms)s) AS room (kind text, size int)
    CROSS JOIN LATERAL (
        SELECT effect.id
        FROM effects AS effect
        WHERE effect.state = 'pending'
            AND effect.due_at <= statement_timestamp()
            AND effect.kind = room.kind
            AND (effect.offered_until IS NULL OR effect.offered_until <= statement_timestamp())
            AND {_ANSWERS}
        ORDER BY effect.due_at
        LIMIT room.size
        FOR UPDATE SKIP LOCKED
    ) AS oldest
))
RETURNING
    id, kind, order_key, payload, tries, sequence, due_at AS since,
    set_config('idle_in_transaction_session_timeout', '5s', true)
"""  # noqa: S608 - all parts are ours

_OFFER_LOST = f"""
UPDATE effects
SET offered_until = clock_timestamp() + %(ttl_s)s * interval '1 s'
WHERE id = ANY (ARRAY(
    SELECT oldest.id
    FROM json_to_recordset(%(rooms)s) AS room (kind text, size int)
    CROSS JOIN LATERAL (
        SELECT effect.id
        FROM effects AS effect
        WHERE effect.state = 'running'
            AND effect.lease_until < statement_timestamp()
            AND effect.kind = room.kind
            AND (effect.offered_until IS NULL OR effect.offered_until <= statement_timestamp())
            AND {_ANSWERS}
        ORDER BY effect.lease_until
        LIMIT room.size
        FOR UPDATE SKIP LOCKED
    ) AS oldest
))
RETURNING
    id, kind, order_key, payload, tries, sequence, lease_until AS since,
    set_config('idle_in_transaction_session_timeout', '5s', true)
"""  # noqa: S608 - all parts are ours

# PostgreSQL allows no FOR UPDATE directly under UNION, so each arm is a subquery.
_OFFER_OLDEST = f"""
UPDATE effects
SET offered_until = clock_timestamp() + %(ttl_s)s * interval '1 s'
WHERE id = (
    SELECT oldest.id
    FROM unnest(%(kinds)s::text[]) AS asked (kind)
    CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT effect.id, effect.due_at AS since
            FROM effects AS effect
            WHERE effect.state = 'pending'
                AND effect.due_at <= statement_timestamp()
                AND effect.kind = asked.kind
                AND (effect.offered_until IS NULL OR effect.offered_until <= statement_timestamp())
                AND {_MAY_BE_CALLED}
                AND effect.subscriber IS NOT DISTINCT FROM %(subscriber)s
            ORDER BY effect.due_at
            LIMIT 1
            FOR UPDATE SKIP LOCKED
        ) AS due
        UNION ALL
        SELECT * FROM (
            SELECT effect.id, effect.lease_until AS since
            FROM effects AS effect
            WHERE effect.state = 'running'
                AND effect.lease_until < statement_timestamp()
                AND effect.kind = asked.kind
                AND (effect.offered_until IS NULL OR effect.offered_until <= statement_timestamp())
                AND {_MAY_BE_CALLED}
                AND effect.subscriber IS NOT DISTINCT FROM %(subscriber)s
            ORDER BY effect.lease_until
            LIMIT 1
            FOR UPDATE SKIP LOCKED
        ) AS lost
    ) AS oldest
    ORDER BY oldest.since
    LIMIT 1
)
RETURNING
    id, kind, order_key, payload, tries,
    set_config('idle_in_transaction_session_timeout', '5s', true)
"""  # noqa: S608 - all parts are ours

# Lock by sequence, the order of every other multi-effect lock, to avoid deadlocks.
_WITHDRAW = """
UPDATE effects
SET offered_until = NULL
WHERE id = ANY (ARRAY(
    SELECT id FROM effects WHERE id = ANY (%(ids)s::uuid[]) ORDER BY sequence FOR UPDATE
))
RETURNING set_config('idle_in_transaction_session_timeout', '5s', true)
"""


def find_due(connection: Connection, kinds: Sequence[str]) -> Due:
    """Find the kinds with an effect that is not offered, and that is due or was lost with its worker.

    Kinds that are paused are left out. If all of them are, the circuits are left out, too.
    """
    found = prepared.execute(connection, _FIND_DUE, {"kinds": list(kinds)}).all()
    return Due(
        due=[row.kind for row in found if row.is_due],
        lost=[row.kind for row in found if row.is_lost],
        opened=(found[0].opened or {}) if found else {},
    )


def outstanding(connection: Connection, kinds: Sequence[str]) -> dict[str, int]:
    """How many offers of each of these kinds no worker has answered yet."""
    return {
        row.kind: row.number for row in prepared.execute(connection, _OUTSTANDING, {"kinds": list(kinds)})
    }


def offer(connection: Connection, found: Due, rooms: Mapping[str, int], ttl_s: float) -> Offers:
    """Mark effects as offered and return them: first those that were lost, then those that are due, oldest first.

    An effect that waits for another one of its order key takes up room, too, but is not offered.

    Parameters:
        found: the kinds that have effects to offer.
        rooms: how many effects of each kind at most.
        ttl_s: seconds until an unanswered offer is made again.
    """
    left = Counter(rooms)
    lost = _mark(connection, _OFFER_LOST, found.lost, left, ttl_s)
    left.subtract(row.kind for row in lost)
    due = _mark(connection, _OFFER_DUE, found.due, left, ttl_s)
    left.subtract(row.kind for row in due)
    return Offers(
        made=_offers(lost) + _offers(_those_ready(connection, due)),
        is_full=any(left[kind] == 0 < room for kind, room in rooms.items()),
    )


def offer_oldest(
    connection: Connection, kinds: Collection[str], ttl_s: float, subscriber: str | None = None
) -> list[Offer]:
    """Mark one effect of these kinds as offered and return it: the one that has been due, or lost, for longest.

    Parameters:
        subscriber: the webhook that is called. None for kinds that call none.

    Effects that wait for others of their order key are passed over. Returns an empty list when there is none.
    """
    values = {"kinds": list(kinds), "ttl_s": ttl_s, "subscriber": subscriber}
    while found := connection.exec_driver_sql(_OFFER_OLDEST, values).all():
        if ready := _those_ready(connection, found):
            return [_made(row) for row in ready]
    return []


def _mark(
    connection: Connection, statement: str, kinds: Sequence[str], rooms: Mapping[str, int], ttl_s: float
) -> Sequence[Row[Any]]:
    with_room = [{"kind": kind, "size": rooms[kind]} for kind in kinds if rooms.get(kind, 0) > 0]
    if not with_room:
        return []
    return prepared.execute(connection, statement, {"rooms": recordset(with_room), "ttl_s": ttl_s}).all()


def _those_ready(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """Leave out the effects that wait for others, and hold those back."""
    held_back = order.hold_back(connection, [row.id for row in rows if row.order_key is not None])
    return [row for row in rows if row.id not in held_back]


def _offers(rows: Sequence[Row[Any]]) -> list[Offer]:
    # RETURNING keeps no order.
    return [_made(row) for row in sorted(rows, key=lambda row: (row.since, row.sequence))]


def _made(row: Row[Any]) -> Offer:
    return Offer(id=row.id, kind=row.kind, payload=row.payload, tries=row.tries)


def withdraw(connection: Connection, effect_ids: Collection[UUID]) -> None:
    """Withdraw offers that never reached the broker, so that they are made again at once."""
    connection.exec_driver_sql(_WITHDRAW, {"ids": list(effect_ids)})
