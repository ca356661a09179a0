"""Dividing tables into partitions, and dropping old ones."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db import partitioning, partitions
from db.compatibility import head, schema_revision
from db.dropping import Dropped
from db.partitions import GROUPS, By, Divided, PartitionsError
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import new_act, record
from worker.pruning import drop_parts, patiently


def begin(engine: Engine, actor: Actor, by: By, reason: str | None) -> Iterator[str]:
    """Divide the tables that are not divided yet, while others write.

    What was divided stays when this is ended. Tables that were only begun are as before.

    Parameters:
        by: how long a period is.

    Yields:
        a line for each step that is done.

    Raises:
        PartitionsError: the tables cannot be divided so.
        sqlalchemy.exc.DBAPIError: the database is away, or a table stays locked.
    """
    with engine.begin() as connection:
        divided = partitions.read(connection)
        revision = schema_revision(connection)
    if revision != head():
        raise PartitionsError(f"the schema is at revision {revision}: run `invigilator migrate` first")
    if not divided.is_owner:
        raise PartitionsError(
            "only the role that owns the tables can divide them, as for `invigilator migrate`"
        )
    if divided.by not in (None, by):
        raise PartitionsError(f"the tables are divided by {divided.by}")
    whole = [tables for tables in GROUPS if not divided.is_divided(tables[0])]
    with engine.begin() as connection:
        partitioning.check_alone(connection, [table for tables in whole for table in tables])
    for tables in whole:
        yield from _begin(engine, actor, tables, by, divided.now, reason)


def _begin(
    engine: Engine, actor: Actor, tables: Sequence[str], by: By, now: datetime, reason: str | None
) -> Iterator[str]:
    names = " and ".join(tables)
    patiently(engine, lambda connection: partitioning.bound(connection, tables, by, now))
    yield f"{names}: checking the rows that are there"

    def divide(connection: Connection) -> None:
        partitioning.divide(connection, tables, by, now)
        details = {"before": {}, "after": {"tables": list(tables), "by": by.value}}
        wanted = {"by": by.value}
        act = new_act(
            actor, Action.BEGIN_PARTITIONS, wanted, number=len(tables), details=details, reason=reason
        )
        record(connection, act)

    try:
        for table in tables:
            patiently(engine, partial(partitioning.validate, table=table))
        patiently(engine, divide)
    except BaseException:
        # A CHECK that stays would refuse new ids one day. If this fails, too, the relay or a person does it.
        with suppress(DBAPIError):
            patiently(engine, partial(partitioning.unbound, tables=tables))
        raise
    yield f"{names}: divided by {by}"


def drop(
    engine: Engine, actor: Actor, divided: Divided, before: datetime, reason: str | None
) -> Iterator[tuple[str, Dropped | str]]:
    """Drop the partitions that are wholly from before a moment.

    Yields:
        each of them, and what went with it, or why it stays. What is younger than one that stays, stays, too.

    Raises:
        PartitionsError: the role does not own the tables, or the moment is in the future.
        sqlalchemy.exc.DBAPIError: the database is away, or a table stays locked.
    """

    def note(connection: Connection, part: str, dropped: Dropped) -> None:
        details = {
            "before": {"part": part, "rows": dict(dropped.rows)},
            "after": {"kept": dict(dropped.kept)},
        }
        wanted = {"before": before.isoformat(), "tables": list(dropped.rows)}
        act = new_act(
            actor,
            Action.DROP_PARTITION,
            wanted,
            number=sum(dropped.rows.values()),
            details=details,
            reason=reason,
        )
        record(connection, act)

    for tables in GROUPS:
        for part, dropped in drop_parts(engine, divided, tables, before, note):
            yield f"{tables[0]}_{part}", dropped
