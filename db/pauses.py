"""Pauses: times in which effects of a kind are neither offered nor claimed, because a person said so.

The relay and the workers look at the table each time, so a pause counts everywhere at once. The time for which an
effect is tried stands still meanwhile.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection

from db.wake import notify

_NOW = "since <= statement_timestamp() AND (ends_at IS NULL OR ends_at > statement_timestamp())"

PAUSED = f"ARRAY(SELECT kind FROM pauses WHERE {_NOW})"  # noqa: S608 - no values
"""The kinds that are paused, as an array."""

# Pauses of a kind do not overlap, so their parts add up.
PAUSED_S = """(
    SELECT coalesce(sum(extract(epoch FROM
        least(pauses.ends_at, statement_timestamp()) - greatest(pauses.since, seen.retrying_since)
    )), 0)
    FROM pauses
    WHERE pauses.kind = effect.kind
        AND pauses.since < statement_timestamp()
        AND (pauses.ends_at IS NULL OR pauses.ends_at > seen.retrying_since)
)"""
"""For how many seconds since `seen.retrying_since` the kind of `effect` was paused."""

CURRENT = f"SELECT kind, since, ends_at, reason FROM pauses WHERE {_NOW}"  # noqa: S608 - no values
"""The pauses that are on, at most one of each kind."""

# Readers do not wait for it, and of those who pause and resume one goes at a time.
_LOCK = "LOCK TABLE pauses IN SHARE ROW EXCLUSIVE MODE"

_END = f"""
UPDATE pauses
SET ends_at = statement_timestamp()
WHERE kind = %(kind)s AND {_NOW}
"""  # noqa: S608 - no values

_BEGIN = """
INSERT INTO pauses (id, kind, since, ends_at, reason)
VALUES (%(id)s, %(kind)s, statement_timestamp(), %(until)s, %(reason)s)
"""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that is on."""

    kind: str
    since: datetime
    ends_at: datetime | None
    """None for one that lasts until a person ends it."""
    reason: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, without the kind."""
        return {
            "since": self.since.isoformat(),
            "ends_at": None if self.ends_at is None else self.ends_at.isoformat(),
            "reason": self.reason,
        }


def current(connection: Connection) -> list[Pause]:
    """Return the pauses that are on, by kind."""
    return [Pause(**row._mapping) for row in connection.exec_driver_sql(f"{CURRENT} ORDER BY kind")]


def lock(connection: Connection) -> None:
    """Have everybody else who pauses or resumes wait until this transaction ends."""
    connection.exec_driver_sql(_LOCK)


def of_kind(connection: Connection, kind: str) -> Pause | None:
    """Return the pause of a kind that is on. None when none is."""
    return next((one for one in current(connection) if one.kind == kind), None)


def begin(connection: Connection, kind: str, until: datetime | None, reason: str | None) -> None:
    """Pause a kind. A pause that is on ends, and the new one takes its place. The caller holds the lock.

    Parameters:
        until: when it ends by itself. None for a pause that lasts until a person ends it.
        reason: shown wherever the pause is.

    Raises:
        sqlalchemy.exc.IntegrityError: `until` has passed.
    """
    connection.exec_driver_sql(_END, {"kind": kind})
    values = {"id": uuid4(), "kind": kind, "until": until, "reason": reason}
    connection.exec_driver_sql(_BEGIN, values)


def end(connection: Connection, kind: str) -> None:
    """End the pause of a kind, and wake the relays. The caller holds the lock."""
    connection.exec_driver_sql(_END, {"kind": kind})
    notify(connection)


def now(connection: Connection) -> datetime:
    """Return the time by which pauses begin and end: the database's."""
    moment: datetime = connection.exec_driver_sql("SELECT statement_timestamp()").scalar_one()
    return moment
