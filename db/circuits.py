"""Circuits: a service that fails in a row is left alone, and then probed with one call, whoever its callers are.

Kept here and not in a process, so that every worker knows and nobody forgets. Whoever locks an effect as well
locks it before the circuit. While a service answers it has no row.
"""

from sqlalchemy import (
    Connection,
    ScalarSelect,
    delete,
    false,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from db.clock import CLOCK, NOW, in_seconds
from db.models import Circuit
from db.wake import notify

# --- for the statements on effects: the first two of a circuit that is joined where there is one ------------


IS_OPEN = func.coalesce(Circuit.open_until > NOW, false())
"""Whether nobody may call the service now."""
HAS_OPENED = Circuit.open_until.is_not(None)
"""Whether the circuit is open, or may be probed."""


def failing() -> ScalarSelect[list[str] | None]:
    """The queues of the services that have failed since their last answer, if there are any."""
    return select(func.array_agg(Circuit.queue)).scalar_subquery()


# --- changes ---------------------------------------------------------------------------------------------


def begin_probe(connection: Connection, queue: str, lease_s: float) -> bool:
    """Be the one whose call probes the service; nobody else may call it for `lease_s` seconds.

    False when somebody else is, or the circuit has closed.
    """
    begun = connection.execute(
        update(Circuit)
        .where(Circuit.queue == queue, Circuit.open_until <= NOW)
        .values(open_until=in_seconds(lease_s))
    )
    return begun.rowcount > 0


def end_probe(connection: Connection, queue: str) -> None:
    """A probe has ended without a word from the service: the next one may begin at once."""
    connection.execute(update(Circuit).where(Circuit.queue == queue).values(open_until=CLOCK))
    notify(connection)


def count_failure(connection: Connection, queue: str, *, probe: bool, at_least: int = 1) -> int | None:
    """Note that the service as a whole did not answer. Returns how often in a row, this time included.

    None when the circuit is open and this was no probe: a call that began before says nothing new.

    Parameters:
        queue: of the effects that call the service.
        probe: whether this was the one call that an open circuit allows.
        at_least: what this failure counts for when there were fewer before it.
    """
    statement = upsert(Circuit).values(queue=queue, failures=at_least)
    return connection.scalar(
        statement.on_conflict_do_update(
            index_elements=[Circuit.queue],
            set_={"failures": func.greatest(Circuit.failures + 1, at_least)},
            where=Circuit.open_until.is_(None) | literal(probe),
        ).returning(Circuit.failures)
    )


def open_for(connection: Connection, queue: str, seconds: float) -> None:
    """Let nobody call the service for so many seconds."""
    connection.execute(update(Circuit).where(Circuit.queue == queue).values(open_until=in_seconds(seconds)))


def close(connection: Connection, queue: str, *, probe: bool) -> bool:
    """The service has answered: forget its failures. Returns whether that closed an open circuit.

    As with failures, a call that began before the circuit opened, and was no probe, changes nothing.
    """
    answered = (
        delete(Circuit)
        .where(Circuit.queue == queue, Circuit.open_until.is_(None) | literal(probe))
        .returning(Circuit.open_until)
    )
    was_open = any(open_until is not None for open_until in connection.scalars(answered))
    if was_open:
        notify(connection)
    return was_open


# --- looking ---------------------------------------------------------------------------------------------


def opened(connection: Connection) -> dict[str, bool]:
    """The queues whose circuit is open, and for each whether it is time for a probe."""
    rows = connection.execute(
        select(Circuit.queue, Circuit.open_until <= NOW).where(Circuit.open_until.is_not(None))
    )
    return {row[0]: row[1] for row in rows}
