"""Removes what was finished long ago, a page at a time: effects with their tries, and commands.

The table `pruned` says up to which moment. Whatever a later decision reads stays: the record and its history,
effects that are owed or have failed, and of each target the effects that say which others are overtaken. Pruning
waits for nobody, and nobody waits for more than one page.

Where the tables are divided, `db.dropping` drops whole periods instead.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from sqlalchemy import Connection

from db import totals

PAGE_ROWS = 1_000
LOCK_TIMEOUT = "1s"

Place = TypeVar("Place", int, datetime)


@dataclass(frozen=True, slots=True)
class Removed:
    """How many rows were removed."""

    effects: int = 0
    tries: int = 0
    commands: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(self.effects + other.effects, self.tries + other.tries, self.commands + other.commands)


@dataclass(frozen=True, slots=True)
class Page(Generic[Place]):
    """What was removed of one page."""

    removed: Removed
    end: Place | None
    """Where the next page begins. None when this was the last."""


_LIMIT_WAITS = "SELECT set_config('lock_timeout', %(limit)s, true)"

_PAGE_OF_EFFECTS = """
SELECT id, sequence, created_at
FROM {table}
WHERE sequence > %(after)s
ORDER BY sequence
LIMIT %(page_rows)s
"""

OVERTAKEN = """EXISTS (
    SELECT
    FROM effects AS newer
    WHERE newer.target = {effect}.target
        AND newer.sequence > {effect}.sequence
        AND newer.state IN ('done', 'superseded')
)"""
"""Whether a final effect is newer than `effect` on its target."""

# Done and superseded are final. But a person may yet cancel a newer effect that failed, or retry one that was
# cancelled. So an effect on a target is removed only if a final one overtakes it. The newest final one stays: for
# every effect that stays, it answers as all of them did.
_REMOVABLE_EFFECTS = f"""
SELECT id
FROM effects AS effect
WHERE id = ANY (%(ids)s::uuid[])
    AND state IN ('done', 'superseded', 'cancelled')
    AND coalesce(done_at, dropped_at, created_at) < %(before)s
    AND (target IS NULL OR {OVERTAKEN.format(effect="effect")})
FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - no values

_DELETE_TRIES = "DELETE FROM tries WHERE effect_id = ANY (%(ids)s::uuid[])"

_DELETE_EFFECTS = "DELETE FROM effects WHERE id = ANY (%(ids)s::uuid[]) RETURNING kind, state"

# A page begins where the last one ended, not at the start: the index keeps removed rows as long as a transaction
# may see them.
_PAGE_OF_COMMANDS = """
SELECT inbox_id, handled_at
FROM outcomes
WHERE handled_at < %(before)s AND handled_at >= coalesce(%(after)s, '-infinity'::timestamptz)
ORDER BY handled_at
LIMIT %(page_rows)s
FOR UPDATE SKIP LOCKED
"""

_DELETE_COMMANDS = "DELETE FROM inbox WHERE id = ANY (%(ids)s::bigint[])"

# The row is locked by the first page only, so that two who prune at the same time do not wait for each other.
_NOTE = """
INSERT INTO pruned (what, before)
SELECT %(what)s, %(before)s
WHERE NOT EXISTS (SELECT FROM pruned WHERE what = %(what)s AND before >= %(before)s)
ON CONFLICT (what) DO UPDATE SET before = greatest(pruned.before, excluded.before)
"""


def remove_effects(
    connection: Connection, before: datetime, after: int | None, table: str = "effects"
) -> Page[int]:
    """Remove a page's effects that ended before a moment, with their tries.

    The pages cover all effects in the order in which they came to be owed, so that those that stay are read once.

    Parameters:
        before: the moment.
        after: where the previous page ended. None for the first.
        table: `effects`, or one of its partitions.
    """
    connection.exec_driver_sql(_LIMIT_WAITS, {"limit": LOCK_TIMEOUT})
    statement = _PAGE_OF_EFFECTS.format(table=table)
    page = connection.exec_driver_sql(statement, {"after": after or 0, "page_rows": PAGE_ROWS}).all()
    old = [row.id for row in page if row.created_at < before]
    if not old:
        return Page(removed=Removed(), end=None)
    removable = connection.exec_driver_sql(_REMOVABLE_EFFECTS, {"ids": old, "before": before})
    chosen = {"ids": removable.scalars().all()}
    tries = connection.exec_driver_sql(_DELETE_TRIES, chosen)
    effects = connection.exec_driver_sql(_DELETE_EFFECTS, chosen).all()
    if effects:
        note(connection, "effects", before)
    totals.add(connection, totals.moved(effects, None), totals.PRUNING)
    return Page(removed=Removed(effects=len(effects), tries=tries.rowcount), end=page[-1].sequence)


def remove_commands(connection: Connection, before: datetime, after: datetime | None) -> Page[datetime]:
    """Remove a page of commands that were handled before a moment, with their outcomes.

    A command that is removed and arrives again is a new one.

    Parameters:
        before: the moment.
        after: where the previous page ended. None for the first.
    """
    connection.exec_driver_sql(_LIMIT_WAITS, {"limit": LOCK_TIMEOUT})
    page = connection.exec_driver_sql(
        _PAGE_OF_COMMANDS, {"before": before, "after": after, "page_rows": PAGE_ROWS}
    ).all()
    if not page:
        return Page(removed=Removed(), end=None)
    removed = connection.exec_driver_sql(_DELETE_COMMANDS, {"ids": [row.inbox_id for row in page]})
    note(connection, "outcomes", before)
    return Page(removed=Removed(commands=removed.rowcount), end=page[-1].handled_at)


def note(connection: Connection, table: str, before: datetime) -> None:
    """Write down that rows of before this moment may be gone. A story that lacks them says so."""
    connection.exec_driver_sql(_NOTE, {"what": table, "before": before})
