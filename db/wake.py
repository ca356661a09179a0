"""How a transaction that owes effects wakes the relays."""

from sqlalchemy import Connection, func, select

EFFECTS_CHANNEL = "invigilator_effects"
"""Where a transaction that owes effects notifies the relay."""


def notify(connection: Connection) -> None:
    """Wake the relays when this transaction commits."""
    connection.execute(select(func.pg_notify(EFFECTS_CHANNEL, "")))
