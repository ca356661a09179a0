"""Drops a period of tables that are divided (`db.partitions`), and keeps what a later decision may read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from db.partitions import (
    COMMANDS,
    EFFECTS,
    EVENTS,
    KEYS,
    REST,
    UNSETTLED,
    Divided,
    PartitionsError,
    ddl,
    exists,
    limit_waits,
    lock,
    read,
)
from db.prune import OVERTAKEN, note


@dataclass(frozen=True, slots=True)
class Dropped:
    """What went with one period.

    Parameters:
        rows: how many went, by table.
        kept: how many were moved to `rest`, by table.
    """

    rows: Mapping[str, int]
    kept: Mapping[str, int]


def droppable(divided: Divided, tables: Sequence[str], before: datetime) -> list[str]:
    """The parts that hold nothing from a moment on, oldest first, as far as their bounds tell.

    Those of commands have no bounds in time, so `drop` looks at them. The newest is none of them.

    Raises:
        PartitionsError: the moment is in the future.
    """
    if before > divided.now:
        raise PartitionsError("only what is over can be dropped, and that moment is in the future")
    partitions = divided.of(tables[0])
    if tables == COMMANDS:
        return [one.part for one in partitions[:-1]]
    return [one.part for one in partitions if one.until is not None and one.until <= before]


def why_not(connection: Connection, tables: Sequence[str], part: str, before: datetime) -> str | None:
    """Why a partition cannot be dropped now. None if it can."""
    name = f"{tables[0]}_{part}"
    statement = {"effects": _UNSETTLED, "events": _NOT_READ, "inbox": _NEWEST}[tables[0]]
    outcomes = f"{COMMANDS[1]}_{part}"
    values = {"before": before}
    found = connection.exec_driver_sql(statement.format(part=name, outcomes=outcomes), values)
    return found.scalar_one_or_none()


_UNSETTLED = f"""
SELECT format(
    'effects of it are running, or are cascades that are owed: %%s (%%s); try again, and if they are paused, after '
    '`invigilator resume`',
    count(*),
    string_agg(DISTINCT kind, ', ')
)
FROM {{part}}
WHERE {UNSETTLED}
HAVING count(*) > 0
"""  # noqa: S608 - the name is ours

_NOT_READ = """
SELECT CASE
    WHEN EXISTS (SELECT FROM {part} WHERE position IS NULL) THEN 'an event of it is not numbered yet'
    WHEN (SELECT max(position) FROM {part}) > (
        SELECT least(position, (SELECT min(position) FROM subscribers)) FROM event_log
    ) THEN 'a subscriber has not passed it yet'
    WHEN EXISTS (
        SELECT
        FROM effects
        JOIN {part} AS event ON event.id = effects.event_id
        WHERE effects.event_id IS NOT NULL AND effects.state IN ('pending', 'running', 'failed')
    ) THEN 'a delivery of it is open'
END
"""

_NEWEST = """
SELECT 'a command of it was handled later'
WHERE (SELECT max(handled_at) FROM {outcomes}) >= %(before)s
"""

# What a later decision may read: see `db.prune`. Effects that may yet run stay, and of each of their targets the
# newest final one that overtakes them. An attempt of an older release has the names under which its credit was told
# only in its effects: see `db.batch`.
_KEPT = f"""
SELECT id
FROM {{part}}
WHERE state IN ('pending', 'failed')
UNION
SELECT id
FROM {{part}} AS effect
WHERE state = 'cancelled' AND target IS NOT NULL AND NOT {OVERTAKEN.format(effect="effect")}
UNION
SELECT final.id
FROM effects AS owed
JOIN {{part}} AS final ON final.target = owed.target AND final.sequence > owed.sequence
WHERE owed.state IN ('pending', 'running', 'failed', 'cancelled')
    AND (owed.state <> 'cancelled' OR owed.tableoid <> '{{part}}'::regclass)
    AND owed.created_at < %(until)s + interval '1 day'  -- the clocks of processes differ
    AND owed.target IS NOT NULL
    AND final.state IN ('done', 'superseded')
    AND NOT {OVERTAKEN.format(effect="final")}
UNION
SELECT effect.id
FROM {{part}} AS effect
JOIN attempts ON attempts.id = effect.attempt_id
WHERE effect.kind = 'set_credit_status'
    AND attempts.credit_owed
    AND attempts.credit_told IS NULL
    AND attempts.removed_at IS NULL
"""  # noqa: S608 - the name is ours

_MOVE_ENDS = """
UPDATE event_log
SET pruned_to = greatest(pruned_to, (SELECT coalesce(max(position), 0) FROM {part}))
"""


def count(connection: Connection, tables: Sequence[str], part: str, before: datetime) -> dict[str, int]:
    """How many rows a part has that is to be dropped, by table. It reads all of them.

    Raises:
        PartitionsError: it cannot be dropped now; the message says why.
    """
    _check_droppable(connection, tables, part, before)
    return {
        table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}_{part}").scalar_one()  # noqa: S608
        for table in tables
    }


def drop(
    connection: Connection, tables: Sequence[str], part: str, before: datetime, rows: Mapping[str, int]
) -> Dropped:
    """Drop a part of tables that share their bounds, in the caller's transaction.

    What a later decision may read of it is moved to `rest`. Everybody else waits until the transaction ends.

    Parameters:
        before: the moment before which everything of it is.
        rows: what `count` has found. That takes long, so it comes before everybody waits.

    Raises:
        PartitionsError: it cannot be dropped now; the message says why.
        sqlalchemy.exc.DBAPIError: a lock was not to be had in time, or the role does not own the tables.
    """
    limit_waits(connection)
    _check_droppable(connection, tables, part, before)
    lock(connection, tables)
    _check_droppable(connection, tables, part, before)
    chosen: Sequence[UUID] = ()
    if tables == EFFECTS:
        until = next(one.until for one in read(connection).of("effects") if one.part == part)
        chosen = (
            connection.exec_driver_sql(_KEPT.format(part=f"effects_{part}"), {"until": until}).scalars().all()
        )
    elif tables == EVENTS:
        ddl(connection, _MOVE_ENDS.format(part=f"events_{part}"))
    kept = {table: _set_aside(connection, table, part, chosen) for table in tables} if chosen else {}
    for table in tables:
        # Detached first, it would get triggers on the attempts. Everybody would have to leave those for the drop.
        ddl(connection, f"DROP TABLE {table}_{part}")
    for table in kept:
        _move_to_rest(connection, table)
    what = "outcomes" if tables == COMMANDS else tables[0]
    note(connection, what, before)
    return Dropped({table: rows[table] - kept.get(table, 0) for table in tables}, kept)


def _check_droppable(connection: Connection, tables: Sequence[str], part: str, before: datetime) -> None:
    if not exists(connection, f"{tables[0]}_{part}"):
        raise PartitionsError(f"{tables[0]}_{part} was dropped by somebody else")
    if reason := why_not(connection, tables, part, before):
        raise PartitionsError(f"{tables[0]}_{part} stays: {reason}")


def _set_aside(connection: Connection, table: str, part: str, effect_ids: Sequence[UUID]) -> int:
    # `rest` refuses rows that have a partition.
    copied = f"""
    CREATE TABLE {table}_kept AS
    SELECT * FROM {table}_{part} WHERE {KEYS[table]} = ANY (%(ids)s::uuid[])
    """  # noqa: S608 - names are ours
    return connection.exec_driver_sql(copied, {"ids": effect_ids}).rowcount


def _move_to_rest(connection: Connection, table: str) -> None:
    moved = f"INSERT INTO {table}_{REST} OVERRIDING SYSTEM VALUE SELECT * FROM {table}_kept"  # noqa: S608 - ours
    ddl(connection, moved)
    ddl(connection, f"DROP TABLE {table}_kept")
