"""Turns tables into partitioned ones while others write. What there is becomes the first partition, not a copy.

Tables that share their bounds are turned together, in steps. Each step is a transaction, and whoever comes next
goes on where it stopped:

1. A CHECK says which ids the first partition may have (`bound`). New rows obey it from then on.
2. The rows that are there are checked, while others write (`validate`).
3. The table becomes the first partition of a new one with its name (`divide`). Everybody waits for a moment.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from db import partitions
from db.errors import CHECK_VIOLATION, UNFINISHED, sqlstate
from db.partitions import (
    CHANGES_KEYS,
    COMMANDS,
    FIRST,
    GROUPS,
    KEYS,
    NUMBERS_OF_A_PERIOD,
    REST,
    By,
    PartitionsError,
    Period,
    attach,
    begin_commands,
    ddl,
    index_name,
    indexes_of,
    like,
    limit_waits,
    lock,
    lowest_id,
    make,
    moment_of,
)

LIFTED_BEFORE: Final = timedelta(days=7)
"""A CHECK that refuses ids in less than this is taken away."""
WITHIN: Final = (("tries", "effects"), ("outcomes", "inbox"))
"""Foreign keys from a table to one that comes and goes with it. Partitions have none: it would tie each partition
to all of the other table's, and they are written and dropped together anyway."""

# The numbers are keys of advisory locks, and arbitrary. A claim that does not get the lock is refused as one that
# meets a running effect: who waited could wait for somebody who waits for it. The look comes after the lock, in a
# statement of its own, so that it sees what the last one who had the lock has committed.
_ALONE = """
    IF NEW.{column} IS NOT NULL THEN
        is_alone := pg_try_advisory_xact_lock({key}, hashtext(NEW.{column}));
        IF is_alone THEN
            is_alone := NOT EXISTS (
                SELECT FROM effects WHERE {column} = NEW.{column} AND state = 'running' AND id <> NEW.id
            );
        END IF;
        IF NOT is_alone THEN
            RAISE unique_violation USING MESSAGE = '{says}', CONSTRAINT = 'uq_effects_running_{column}';
        END IF;
    END IF;"""

_TRIGGERS: Final = {
    "effects": f"""
CREATE OR REPLACE FUNCTION effects_run_alone() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    is_alone bool;
BEGIN
{_ALONE.format(column="target", key=491627110, says="another effect runs on the target")}
{_ALONE.format(column="order_key", key=491627111, says="another effect with the order key runs")}
    RETURN NULL;
END
$body$;
CREATE TRIGGER effects_run_alone AFTER UPDATE OF state ON effects FOR EACH ROW
WHEN (
    NEW.state = 'running' AND OLD.state <> 'running' AND (NEW.target IS NOT NULL OR NEW.order_key IS NOT NULL)
)
EXECUTE FUNCTION effects_run_alone()
""",
    # A function sees what is committed when it is called, not when the statement that inserts has begun. So who has
    # waited for a new partition to begin sees what the one before has.
    "inbox": f"""
CREATE OR REPLACE FUNCTION inbox_seen_before() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
    IF EXISTS (
        SELECT
        FROM inbox
        WHERE source = NEW.source
            AND command_id = NEW.command_id
            AND id < NEW.id / {NUMBERS_OF_A_PERIOD} * {NUMBERS_OF_A_PERIOD}
    ) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$body$;
CREATE TRIGGER inbox_seen_before BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION inbox_seen_before()
""",  # noqa: S608 - a number
}
"""What the indexes of a whole table guarantee, and those of partitions only for each partition."""

_CHECK = """
SELECT pg_get_constraintdef(oid)
FROM pg_constraint
WHERE conrelid = to_regclass(quote_ident(%(table)s)) AND conname = %(name)s
"""

_IDENTITY = """
SELECT attname AS name, pg_get_serial_sequence(quote_ident(%(table)s), attname) AS sequence
FROM pg_attribute
WHERE attrelid = to_regclass(quote_ident(%(table)s)) AND attidentity <> ''
"""

_FOREIGN_KEYS = """
SELECT conname AS name, pg_get_constraintdef(oid) AS sql, confrelid::regclass::text AS other
FROM pg_constraint
WHERE conrelid = to_regclass(quote_ident(%(table)s)) AND contype = 'f'
"""


# What others have hung on a table would stay with its first partition, or keep it from becoming one.
_IN_THE_WAY = """
WITH asked AS (
    SELECT to_regclass(quote_ident(name)) AS oid FROM unnest(%(tables)s::text[]) AS name
), named (kind, name, oid) AS (
    SELECT 'the view', ev_class::regclass::text, asked.oid
    FROM asked
    JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = asked.oid
    JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid AND ev_class <> asked.oid
    UNION
    SELECT 'the publication', pubname, asked.oid
    FROM asked
    JOIN pg_publication_rel ON prrelid = asked.oid
    JOIN pg_publication ON pg_publication.oid = prpubid
    UNION
    SELECT 'the policy', polname, asked.oid FROM asked JOIN pg_policy ON polrelid = asked.oid
    UNION
    SELECT 'a grant on the column', attname, asked.oid
    FROM asked
    JOIN pg_attribute ON attrelid = asked.oid AND attacl IS NOT NULL AND attacl <> '{}'
    UNION
    SELECT 'a foreign key of the table', conrelid::regclass::text, asked.oid
    FROM asked
    JOIN pg_constraint ON confrelid = asked.oid AND contype = 'f'
    WHERE NOT conrelid = ANY (SELECT oid FROM asked)
)
SELECT string_agg(kind || ' ' || name || ' (' || oid::regclass::text || ')', ', ' ORDER BY kind, name, oid)
FROM named
"""


def check_alone(connection: Connection, tables: Sequence[str]) -> None:
    """Check that nothing but the project's own hangs on tables that are to be divided.

    Raises:
        PartitionsError: something does; the message names it.
    """
    if found := connection.exec_driver_sql(_IN_THE_WAY, {"tables": list(tables)}).scalar_one():
        raise PartitionsError(
            f"{' and '.join(tables)} cannot be divided while this depends on them: {found}; "
            "remove it, and make it again afterwards"
        )


def begun(connection: Connection, table: str) -> str | None:
    """The first id that the CHECK on a table that is to be divided refuses. None if there is no such CHECK."""
    values = {"table": table, "name": UNFINISHED.format(table=table)}
    definition = connection.exec_driver_sql(_CHECK, values).scalar_one_or_none()
    if definition is None:
        return None
    return str(definition).split("<")[1].split(")")[0].split("::")[0].strip(" '")


def bound(connection: Connection, tables: Sequence[str], by: By, now: datetime) -> None:
    """Say which ids the first partition may have: those up to the end of the next period.

    That is far enough away that somebody notices if the rest never comes: later ids would be refused.
    """
    limit_waits(connection)
    end = Period.of(now, by).next().next()
    for table in tables:
        if begun(connection, table) is None:
            upper = NUMBERS_OF_A_PERIOD if tables == COMMANDS else f"'{lowest_id(end.start)}'::uuid"
            name = UNFINISHED.format(table=table)
            ddl(
                connection,
                f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({KEYS[table]} < {upper}) NOT VALID",
            )


def validate(connection: Connection, table: str) -> None:
    """Check the rows that are there, while others read and write.

    Raises:
        PartitionsError: some rows have ids that do not tell the time.
    """
    try:
        ddl(connection, f"ALTER TABLE {table} VALIDATE CONSTRAINT {UNFINISHED.format(table=table)}")
    except DBAPIError as error:
        if sqlstate(error) != CHECK_VIOLATION:
            raise
        raise PartitionsError(
            f"the table {table} has ids that are no UUIDs of version 7, or that are from the future, so it cannot "
            "be divided by time"
        ) from None


def unbound(connection: Connection, tables: Sequence[str]) -> None:
    """Take the CHECKs away again. The tables are as before."""
    limit_waits(connection)
    for table in tables:
        ddl(connection, f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {UNFINISHED.format(table=table)}")


def abandoned(connection: Connection, now: datetime) -> list[Sequence[str]]:
    """The tables whose dividing was begun and not finished, and that would refuse new ids in less than a week."""
    return [
        tables
        for tables in GROUPS
        if tables != COMMANDS  # their numbers never get so far
        and any(
            upper is not None and moment_of(UUID(upper)) - now < LIFTED_BEFORE
            for upper in (begun(connection, table) for table in tables)
        )
    ]


def divide(connection: Connection, tables: Sequence[str], by: By, now: datetime) -> None:
    """Make tables the first partitions of new ones with their names, in the caller's transaction.

    Raises:
        PartitionsError: somebody else has divided them, or stopped this.
        sqlalchemy.exc.DBAPIError: a lock was not to be had in time, or the role does not own the tables.
    """
    limit_waits(connection)
    if partitions.read(connection).is_divided(tables[0]):
        raise PartitionsError(f"{' and '.join(tables)}: somebody else has just divided them")
    lock(connection, tables, CHANGES_KEYS)
    for from_table, to_table in WITHIN:
        if from_table in tables:
            _drop_foreign_keys(connection, from_table, to_table)
    for table in tables:
        _divide(connection, table)
    if tables == COMMANDS:
        begin_commands(connection, str(Period.of(now, by)))
        return
    made = partitions.read(connection)
    for period in (period for some, period in partitions.missing_of(made, by, now) if some == tables):
        make(connection, tables, period)


def _drop_foreign_keys(connection: Connection, from_table: str, to_table: str) -> None:
    for key in connection.exec_driver_sql(_FOREIGN_KEYS, {"table": from_table}).all():
        if key.other == to_table:
            ddl(connection, f"ALTER TABLE {from_table} DROP CONSTRAINT {key.name}")


def _divide(connection: Connection, table: str) -> None:
    asked = {"table": table}
    upper = begun(connection, table)
    if upper is None:
        raise PartitionsError(f"somebody else has stopped the dividing of {table}: begin again")
    first, name = f"{table}_{FIRST}", UNFINISHED.format(table=table)
    identities = [
        (one.name, _next(connection, one.sequence))
        for one in connection.exec_driver_sql(_IDENTITY, asked).all()
    ]
    indexes = indexes_of(connection, table)
    foreign_keys = connection.exec_driver_sql(_FOREIGN_KEYS, asked).all()
    for column, _ in identities:
        ddl(connection, f"ALTER TABLE {table} ALTER COLUMN {column} DROP IDENTITY")
    for index in indexes:
        _rename(connection, table, index)
    ddl(connection, f"ALTER TABLE {table} RENAME TO {first}")
    _create(connection, table, indexes, foreign_keys)
    for column, following in identities:
        ddl(
            connection,
            f"ALTER TABLE {table} ALTER COLUMN {column} ADD GENERATED ALWAYS AS IDENTITY (START WITH {following})",
        )
    attach(connection, table, first, "MINVALUE", f"'{upper}'")
    ddl(connection, f"ALTER TABLE {first} DROP CONSTRAINT {name}")
    if table not in COMMANDS:
        like(connection, table, FIRST, REST)
        ddl(connection, f"ALTER TABLE {table} ATTACH PARTITION {table}_{REST} DEFAULT")
    if table in _TRIGGERS:
        ddl(connection, _TRIGGERS[table])


def _create(connection: Connection, table: str, indexes: Sequence[Any], foreign_keys: Sequence[Any]) -> None:
    """Create the partitioned table, with all that holds across partitions."""
    first = f"{table}_{FIRST}"
    ddl(
        connection,
        f"CREATE TABLE {table} (LIKE {first} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE "
        f"INCLUDING COMPRESSION INCLUDING COMMENTS) PARTITION BY RANGE ({KEYS[table]})",
    )
    ddl(connection, f"ALTER TABLE {table} DROP CONSTRAINT {UNFINISHED.format(table=table)}")
    partitions.share(connection, first, table)
    for index in indexes:
        if index.is_primary:
            ddl(connection, f"ALTER TABLE {table} ADD CONSTRAINT {index.key} {index.key_sql}")
        elif not index.is_unique:
            ddl(connection, index.sql)
    for one in foreign_keys:
        ddl(connection, f"ALTER TABLE {table} ADD CONSTRAINT {one.name} {one.sql}")


def _next(connection: Connection, sequence: str) -> int:
    row = connection.exec_driver_sql(f"SELECT last_value, is_called FROM {sequence}").one()  # noqa: S608
    return int(row.last_value) + bool(row.is_called)


def _rename(connection: Connection, table: str, index: Any) -> None:
    """Leave the names of the indexes to those of the whole table."""
    name = index_name(index.name, FIRST)
    if index.key is None:
        ddl(connection, f"ALTER INDEX {index.name} RENAME TO {name}")
    else:
        ddl(connection, f"ALTER TABLE {table} RENAME CONSTRAINT {index.key} TO {name}")
