"""Totals: how many commands, tries and finished effects there were, however many rows are kept.

Each process adds to rows of its own, in the transaction of what it counts, so that no process waits for another.
Whoever adds takes the locks of effects first, and adds last.

What is counted, by the first member of a key:

- `commands`, outcome, code: outcomes. The code is "" where the outcome has none. They only grow.
- `tries`, kind, result: tries that have ended. They only grow.
- `effects`, kind, state: the effects that are kept in one of the states of `COUNTED`. Pruning lowers them.
- `batches`, the upper bound of a bucket in seconds, `batches_seconds` and `batches_messages`: what
  `worker.batch_times` has measured.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row

from db.processes import this_process
from db.recordset import recordset
from db.states import EffectState

Key = tuple[str, ...]
"""What is counted: its name, and a value for each label."""

COMMANDS: Final = "commands"
TRIES: Final = "tries"
EFFECTS: Final = "effects"
BATCHES: Final = "batches"
BATCHES_SECONDS: Final = "batches_seconds"
BATCHES_MESSAGES: Final = "batches_messages"

COUNTED: Final = (EffectState.DONE, EffectState.FAILED, EffectState.SUPERSEDED, EffectState.CANCELLED)
"""The states in which effects stay, so that there are many. Those that are pending or run are found by an index."""

RECOUNT: Final = UUID(int=1)
"""The writer of what a recount has corrected."""
PRUNING: Final = UUID(int=2)
"""The writer of what was pruned, whichever process prunes."""
RECOUNT_LOCK: Final = 491_627_100
"""The key of an advisory lock, an arbitrary number."""

ADD: Final = """
INSERT INTO totals (name, labels, writer, value)
SELECT name, labels, %(writer)s::uuid, value
FROM json_to_recordset(%(totals)s) AS total (name text, labels text[], value float8)
ON CONFLICT (name, labels, writer) DO UPDATE SET value = totals.value + excluded.value
"""

_TOTALS = """
SELECT name, labels, sum(value) AS value
FROM totals
WHERE name = ANY (%(names)s::text[])
GROUP BY name, labels
ORDER BY name, labels
"""

# Both sides are read in one snapshot, so what others count meanwhile is in neither, and the difference holds.
_RECOUNT = """
INSERT INTO totals (name, labels, writer, value)
SELECT 'effects', labels, %(writer)s, coalesce(kept.number, 0) - coalesce(told.number, 0)
FROM (
    SELECT ARRAY[kind, state] AS labels, count(*) AS number
    FROM effects
    WHERE state = ANY (%(states)s::text[])
    GROUP BY kind, state
) AS kept
FULL JOIN (
    SELECT labels, sum(value) AS number FROM totals WHERE name = 'effects' GROUP BY labels
) AS told USING (labels)
WHERE coalesce(kept.number, 0) <> coalesce(told.number, 0)
ON CONFLICT (name, labels, writer) DO UPDATE SET value = totals.value + excluded.value
"""


def parameters(counts: Mapping[Key, float], writer: UUID | None = None) -> dict[str, Any]:
    """The parameters of `ADD`, see `add`. Rows are in the order of their keys, in which everybody locks them."""
    rows = [
        {"name": name, "labels": labels, "value": value} for (name, *labels), value in sorted(counts.items())
    ]
    return {"totals": recordset(rows), "writer": writer or this_process()}


def add(connection: Connection, counts: Mapping[Key, float], writer: UUID | None = None) -> None:
    """Add to the totals, as the last locks of the caller's transaction. Adds nothing where there is nothing.

    Parameters:
        writer: whose rows are added to, by default those of this process. Another transaction that adds to them
            waits for this one.
    """
    if counts:
        connection.exec_driver_sql(ADD, parameters(counts, writer))


def moved(effects: Iterable[Row[Any]], after: EffectState | None) -> Counter[Key]:
    """What changes in the totals when effects leave their state.

    Parameters:
        effects: rows with `kind` and `state`, the state before.
        after: the state in which they are then. None for those that are removed.
    """
    counts: Counter[Key] = Counter()
    for row in effects:
        for state, change in ((row.state, -1), (after, 1)):
            if state in COUNTED:
                counts[EFFECTS, row.kind, state] += change
    return counts


def read(connection: Connection, *names: str) -> dict[Key, float]:
    """The totals with these names, by key."""
    rows = connection.exec_driver_sql(_TOTALS, {"names": list(names)})
    return {(row.name, *row.labels): row.value for row in rows}


def recount(connection: Connection) -> None:
    """Count the finished effects that are kept, and correct the totals by the difference.

    They differ after an upgrade: a release before 0.5 does not count. It reads all effects once.

    Parameters:
        connection: in no transaction. This begins one of its own, and others may write meanwhile.
    """
    snapshot = connection.execution_options(isolation_level="REPEATABLE READ")
    with snapshot.begin():
        # The first query takes the snapshot. It must not be from before a wait for a partition that goes.
        snapshot.exec_driver_sql("LOCK TABLE effects IN ACCESS SHARE MODE")
        locked = snapshot.exec_driver_sql("SELECT pg_try_advisory_xact_lock(%(key)s)", {"key": RECOUNT_LOCK})
        if locked.scalar():
            states = [state.value for state in COUNTED]
            snapshot.exec_driver_sql(_RECOUNT, {"states": states, "writer": RECOUNT})
