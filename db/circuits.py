"""Circuit breakers: when a service fails in a row nobody calls it for a while. Then one call probes it.

Circuits are kept in the database, so that every worker knows them and no restart forgets them. While a service
answers it has no row. A transaction that also locks an effect locks the effect before the circuit.
"""

from sqlalchemy import Connection

from db.wake import notify

_BEGIN_PROBE = """
UPDATE circuits
SET open_until = clock_timestamp() + %(lease_s)s * interval '1 s'
WHERE queue = %(queue)s AND open_until <= statement_timestamp()
"""

_END_PROBE = "UPDATE circuits SET open_until = clock_timestamp() WHERE queue = %(queue)s"

_COUNT_FAILURE = """
INSERT INTO circuits AS circuit (queue, failures, reason)
VALUES (%(queue)s, %(at_least)s, %(reason)s)
ON CONFLICT (queue) DO UPDATE
SET failures = greatest(circuit.failures + 1, %(at_least)s), reason = excluded.reason
WHERE circuit.open_until IS NULL OR %(probe)s
RETURNING failures
"""

_OPEN = """
UPDATE circuits
SET open_until = clock_timestamp() + %(seconds)s * interval '1 s'
WHERE queue = %(queue)s
"""

_CLOSE = """
DELETE FROM circuits
WHERE queue = %(queue)s AND (open_until IS NULL OR %(probe)s)
RETURNING open_until
"""

OPENED = """(
    SELECT json_object_agg(queue, open_until <= statement_timestamp()) FROM circuits WHERE open_until IS NOT NULL
)"""
"""The queues whose circuit is open, and whether each may be probed now: a JSON object, or null."""


def begin_probe(connection: Connection, queue: str, lease_s: float) -> bool:
    """Reserve the one call that probes the service. Nobody else may call it for `lease_s` seconds.

    Returns False when another call probes the service, or when the circuit has closed.
    """
    begun = connection.exec_driver_sql(_BEGIN_PROBE, {"queue": queue, "lease_s": lease_s})
    return begun.rowcount > 0


def end_probe(connection: Connection, queue: str) -> None:
    """Allow the next probe at once: this one has ended and says nothing about the service."""
    connection.exec_driver_sql(_END_PROBE, {"queue": queue})
    notify(connection)


def count_failure(
    connection: Connection, queue: str, *, probe: bool, at_least: int = 1, reason: str | None = None
) -> int | None:
    """Count a call that the service as a whole did not answer. Returns the failures in a row, this one included.

    Returns None when the circuit is open and this was no probe: a call that began earlier says nothing new.

    Parameters:
        queue: of the effects that call the service.
        probe: whether this was the one call that an open circuit allows.
        at_least: how many failures there are at least after this one.
        reason: what the call has said. It is kept, so it holds no names and addresses.
    """
    values = {"queue": queue, "at_least": at_least, "probe": probe, "reason": reason}
    failures: int | None = connection.exec_driver_sql(_COUNT_FAILURE, values).scalar()
    return failures


def open_for(connection: Connection, queue: str, seconds: float) -> None:
    """Open the circuit: nobody calls the service for so many seconds."""
    connection.exec_driver_sql(_OPEN, {"queue": queue, "seconds": seconds})


def close(connection: Connection, queue: str, *, probe: bool) -> bool:
    """Forget the failures of a service: it has answered. Returns whether that closed an open circuit.

    A call that began before the circuit opened and is no probe changes nothing, as in `count_failure`.
    """
    closed = connection.exec_driver_sql(_CLOSE, {"queue": queue, "probe": probe})
    was_open = any(open_until is not None for open_until in closed.scalars())
    if was_open:
        notify(connection)
    return was_open
