"""What waits for a process, as far as the database knows. Each look is by an index, however many rows are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from db.pauses import PAUSED

# ORDER BY and LIMIT as in `db.offers`: with EXISTS, PostgreSQL may read the table.
_DUE = f"""
SELECT asked.kind
FROM unnest(%(kinds)s::text[]) AS asked (kind)
LEFT JOIN LATERAL (
    SELECT true AS found
    FROM effects
    WHERE state = 'pending'
        AND due_at <= statement_timestamp()
        AND effects.kind = asked.kind
        AND (subscriber IS NULL OR subscriber NOT IN (SELECT name FROM subscribers WHERE off_since IS NOT NULL))
    ORDER BY due_at
    LIMIT 1
) AS due ON true
LEFT JOIN LATERAL (
    SELECT true AS found
    FROM effects
    WHERE state = 'running' AND lease_until < statement_timestamp() AND effects.kind = asked.kind
    ORDER BY lease_until
    LIMIT 1
) AS lost ON true
WHERE (due.found OR lost.found) AND asked.kind <> ALL ({PAUSED})
"""  # noqa: S608 - no values

_UNNUMBERED = """
SELECT EXISTS (SELECT FROM (SELECT FROM events WHERE position IS NULL ORDER BY sequence LIMIT 1) AS one)
"""

_CIRCUITS = """
SELECT queue, since, open_until, reason, extract(epoch FROM clock_timestamp() - since)::float8 AS failing_s
FROM circuits
WHERE open_until IS NOT NULL
ORDER BY queue
"""

_SHARDS = """
SELECT shard, owner, extract(epoch FROM clock_timestamp() - progressed_at)::float8 AS progressed_ago_s
FROM shards
ORDER BY shard
"""


@dataclass(frozen=True, slots=True)
class OpenCircuit:
    """A service that is not called.

    Parameters:
        since: when the first of the failures ended that opened it.
        failing_s: seconds since then.
        reason: what the last failure said.
    """

    queue: str
    since: datetime
    open_until: datetime
    reason: str | None
    failing_s: float


@dataclass(frozen=True, slots=True)
class ShardRow:
    """Who has a shard, and when it was last seen to be served; None where it never was."""

    shard: int
    owner: str | None
    progressed_ago_s: float | None


def due(connection: Connection, kinds: Sequence[str]) -> set[str]:
    """Return those of the kinds that have effects to run now: due, or lost with their worker.

    Paused kinds are none of them, and deliveries to webhooks that are off do not count.
    """
    return set(connection.exec_driver_sql(_DUE, {"kinds": list(kinds)}).scalars())


def has_unnumbered_events(connection: Connection) -> bool:
    """Return whether events wait for their positions."""
    return bool(connection.exec_driver_sql(_UNNUMBERED).scalar_one())


def open_circuits(connection: Connection) -> list[OpenCircuit]:
    """Return the circuits that are open, by the names of their queues or webhooks."""
    return [OpenCircuit(**one._mapping) for one in connection.exec_driver_sql(_CIRCUITS)]


def shard_rows(connection: Connection) -> list[ShardRow]:
    """Return the shards, by number. Nothing before the first `consume` has begun."""
    return [ShardRow(**one._mapping) for one in connection.exec_driver_sql(_SHARDS)]
