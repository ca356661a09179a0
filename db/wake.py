"""How a transaction wakes those who wait for what it has written."""

from collections.abc import Sequence

from sqlalchemy import Connection

from db.round_trips import later

EFFECTS_CHANNEL = "invigilator_effects"
"""The channel on which a transaction that owes effects notifies the relays."""

EVENTS_CHANNEL = "invigilator_events"
"""The channel on which a transaction that writes events notifies the relays, which number them."""

POSITIONS_CHANNEL = "invigilator_positions"
"""The channel on which the relay that has numbered events notifies those who publish and read them."""


def notification(channel: str) -> str:
    """Return the SQL expression that notifies a channel when its transaction commits."""
    return f"pg_notify('{channel}', '')"


NOTIFY_EFFECTS = f"SELECT {notification(EFFECTS_CHANNEL)}"
"""The statement that wakes the relays when its transaction commits."""

OUTCOMES_CHANNEL = "invigilator_outcomes"
"""The channel on which a batch with an awaited command notifies those who wait for its outcome."""

_NOTIFY_OUTCOMES = f"SELECT {notification(OUTCOMES_CHANNEL)}"

_QUEUE_USAGE = "SELECT pg_notification_queue_usage()"

# The state and the transaction of another user's session are visible to members of pg_read_all_stats only.
_HOLDER = """
SELECT pid, concat_ws(', ',
    'application ' || nullif(application_name, ''), 'user ' || usename, 'database ' || datname,
    state || ' for ' || round(extract(epoch FROM clock_timestamp() - xact_start)) || ' s') AS session
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND (xact_start IS NOT NULL OR pid = ANY (%(suspects)s::int[]))
ORDER BY pid = ANY (%(suspects)s::int[]) DESC, xact_start
LIMIT 1
"""

FULL = 0.5
"""The usage from which PostgreSQL itself warns of its queue of notifications."""


def notify(connection: Connection) -> None:
    """Wake the relays when this transaction commits."""
    later(connection, NOTIFY_EFFECTS)


def notify_outcomes(connection: Connection) -> None:
    """Wake those who wait for the outcome of a command when this transaction commits."""
    later(connection, _NOTIFY_OUTCOMES)


def who_fills_the_queue(connection: Connection, suspects: Sequence[int]) -> str | None:
    """Says in words which session fills PostgreSQL's queue of notifications. None when the queue is not full.

    A session that listens and stays in a transaction keeps all notifications in the queue, whatever their channel
    and database.

    Parameters:
        suspects: process ids that PostgreSQL has warned of. Without them the oldest transaction is suspected.
    """
    # This question lets PostgreSQL drop the notifications that every session has read. A NOTIFY that fails does
    # not: the queue of PostgreSQL 18 stays full without it (seen).
    usage = connection.exec_driver_sql(_QUEUE_USAGE).scalar_one()
    if usage < FULL:
        return None
    row = connection.exec_driver_sql(_HOLDER, {"suspects": list(suspects)}).first()
    session = f"most likely pid {row.pid} ({row.session})" if row else "which only a superuser can see"
    return f"PostgreSQL's queue of notifications is {usage:.0%} full: end the session that keeps it so, {session}"
