"""What is owed, failed and running, by kind: counted in milliseconds, however many finished effects are kept."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from db import totals
from db.states import EffectState

# With stale statistics PostgreSQL may prefer the table to the index, which holds the few rows that are asked for.
_BY_INDEX = "SET LOCAL enable_seqscan = off"

_PENDING = """
SELECT
    kind,
    count(*) AS number,
    extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest_s
FROM effects
WHERE state = 'pending'
GROUP BY kind
"""

_RUNNING = "SELECT kind, count(*) AS number FROM effects WHERE state = 'running' GROUP BY kind"


@dataclass(frozen=True, slots=True)
class Backlog:
    """The effects of a kind that are not finished.

    Parameters:
        oldest_s: seconds since the oldest pending one came to be owed. None when none is pending.
    """

    pending: int
    running: int
    failed: int
    oldest_s: float | None


NOTHING: Final = Backlog(pending=0, running=0, failed=0, oldest_s=None)


def by_kind(connection: Connection) -> dict[str, Backlog]:
    """The backlog of each kind that has or had any, in a transaction of its own.

    Raises:
        sqlalchemy.exc.InvalidRequestError: the connection is in a transaction.
    """
    with connection.begin():
        connection.exec_driver_sql(_BY_INDEX)
        pending = {row.kind: row for row in connection.exec_driver_sql(_PENDING)}
        running = {row.kind: row.number for row in connection.exec_driver_sql(_RUNNING)}
        ended = totals.read(connection, totals.EFFECTS)
    failed = {
        kind: round(number) for (_, kind, state), number in ended.items() if state == EffectState.FAILED
    }
    return {
        kind: Backlog(
            pending=pending[kind].number if kind in pending else 0,
            running=running.get(kind, 0),
            failed=failed.get(kind, 0),
            oldest_s=pending[kind].oldest_s if kind in pending else None,
        )
        for kind in sorted(pending.keys() | running.keys() | failed.keys())
    }


def by_state(connection: Connection, owed: Mapping[str, Backlog]) -> dict[str, int]:
    """How many effects are in each state.

    Those that have ended are counted as they end. The relay counts them anew every day.

    Parameters:
        owed: the backlog by kind.
    """
    counts = Counter({state.value: 0 for state in EffectState})
    for one in owed.values():
        counts.update({EffectState.PENDING: one.pending, EffectState.RUNNING: one.running})
    for (_, _, state), number in totals.read(connection, totals.EFFECTS).items():
        counts[state] += round(number)
    return dict(counts)
