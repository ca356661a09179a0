"""How a transaction that owes effects wakes the relays."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, text

EFFECTS_CHANNEL = "invigilator_effects"
"""Where a transaction that owes effects notifies the relay."""
WAKE = func.pg_notify(EFFECTS_CHANNEL, "")
"""Selected, it wakes the relays when the transaction commits."""

# A session of another user's shows its state and its transaction only to members of pg_read_all_stats.
_HOLDER = text("""
    SELECT pid, concat_ws(', ',
        'application ' || nullif(application_name, ''), 'user ' || usename, 'database ' || datname,
        state || ' for ' || round(extract(epoch FROM clock_timestamp() - xact_start)) || ' s') AS session
    FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND (xact_start IS NOT NULL OR pid = ANY(CAST(:suspects AS integer[])))
    ORDER BY pid = ANY(CAST(:suspects AS integer[])) DESC, xact_start LIMIT 1
""")
FULL = 0.5
"""From here on PostgreSQL itself warns of its queue."""


def notify(connection: Connection) -> None:
    """Wake the relays when this transaction commits."""
    connection.execute(select(WAKE))


def who_fills_the_queue(connection: Connection, suspects: Sequence[int]) -> str | None:
    """What fills PostgreSQL's queue of notifications, in words; None when it is not full.

    A session that listens keeps what comes while it is in a transaction, whatever the channel and the database.

    Parameters:
        suspects: process ids that PostgreSQL has warned of; else the oldest transaction is suspected.
    """
    # Asking lets PostgreSQL forget what everybody has read. A NOTIFY that fails does not: without asking, the queue
    # of 18 stays full once it is full (seen).
    usage = connection.scalar(select(func.pg_notification_queue_usage())) or 0.0
    if usage < FULL:
        return None
    row = connection.execute(_HOLDER, {"suspects": list(suspects)}).first()
    session = f"most likely pid {row.pid} ({row.session})" if row else "which only a superuser can see"
    return f"PostgreSQL's queue of notifications is {usage:.0%} full: end the session that keeps it so, {session}"
