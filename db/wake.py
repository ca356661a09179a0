"""How a transaction that owes effects wakes the relays."""

from sqlalchemy import Connection, func, select

EFFECTS_CHANNEL = "invigilator_effects"
"""Where a transaction that owes effects notifies the relay."""
WAKE = func.pg_notify(EFFECTS_CHANNEL, "")
"""Selected, it wakes the relays when the transaction commits."""


def notify(connection: Connection) -> None:
    """Wake the relays when this transaction commits."""
    connection.execute(select(WAKE))
