"""Ends a period of the divided tables in a storm, and drops it. What goes is kept aside, so that the audit has it.

A storm is shorter than a month. So the end of the first period is moved to now, as if a month were over. That is
the only step which the product does not take itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from sqlalchemy import Connection

from db import totals
from db.partitions import (
    CHANGES_KEYS,
    COMMANDS,
    FIRST,
    GROUPS,
    KEYS,
    By,
    Period,
    attach,
    ddl,
    like,
    limit_waits,
    lock,
    lowest_id,
    move,
    read,
)
from invigilator.acts import partitions as acts
from invigilator.acts.actor import Actor, Via
from tests.acceptance.harness import Stack
from tests.chaos.listener import Listener
from tests.engines import disposed

OPERATOR = Actor("storm", is_claimed=True, via=Via.COMMAND_LINE, origin=None)

# Whatever drops the table, its rows are kept in the same transaction, when everybody else waits.
_KEEP = """
CREATE SCHEMA dropped;
CREATE SCHEMA whole;
CREATE FUNCTION dropped.keep() RETURNS event_trigger LANGUAGE plpgsql AS $body$
DECLARE
    part text = substring(current_query() FROM '^DROP TABLE (\\w+_first)$');
BEGIN
    IF part IS NOT NULL THEN
        EXECUTE format('INSERT INTO dropped.%I SELECT * FROM public.%I', split_part(part, '_', 1), part);
    END IF;
END
$body$;
CREATE EVENT TRIGGER keep ON ddl_command_start WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION dropped.keep()
"""
_KEPT = "CREATE TABLE dropped.{table} (LIKE public.{table})"
# What the product itself has kept is in its tables.
_WHOLE = """
CREATE VIEW whole.{table} AS
SELECT * FROM public.{table}
UNION ALL
SELECT * FROM dropped.{table} AS gone
WHERE NOT EXISTS (SELECT FROM public.{owner} AS kept WHERE kept.id = gone.{key})
"""
_IS_OVER = "SELECT to_regclass('whole.{table}') IS NOT NULL"
_NEXT_NUMBER = "SELECT coalesce(max(id), 0) + 1 FROM inbox"
_TO_BE_HEARD = """
SELECT position, id FROM events WHERE position <= (SELECT max(position) FROM events_first) ORDER BY position
"""


def whole(database_url: str) -> str:
    """The URL with which a reader sees what was dropped as if it were there."""
    return f"{database_url}{'&' if '?' in database_url else '?'}options={quote('-csearch_path=whole,public')}"


@dataclass(slots=True)
class Periods:
    """The periods of the tables of a stack."""

    stack: Stack
    _repeated_from: int = field(default=1, init=False)
    """The first number of the inbox of which duplicates may come."""
    _is_uncounted: bool = field(default=False, init=False)

    def prepare(self) -> None:
        """Keep aside what will be dropped. Commands that were handled before this are not repeated."""
        with disposed(self.stack.database_url) as engine, engine.begin() as connection:
            ddl(connection, _KEEP)
            for table in KEYS:
                ddl(connection, _KEPT.format(table=table))
            self._repeated_from = connection.exec_driver_sql(_NEXT_NUMBER).scalar_one()

    def end(self) -> None:
        """Let the first period of each table be over. Does nothing where that was done.

        The period of commands is over for those that nobody repeats: who drops a period forgets its commands.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is away, or a lock was not to be had in time.
            BusyError: the totals are being counted.
        """
        with disposed(self.stack.database_url) as engine:
            for tables in GROUPS:
                with engine.begin() as connection:
                    limit_waits(connection)  # nobody else makes partitions meanwhile
                    lock(connection, tables, CHANGES_KEYS)
                    if not connection.exec_driver_sql(_IS_OVER.format(table=tables[0])).scalar_one():
                        self._end(connection, tables)

    def _end(self, connection: Connection, tables: Sequence[str]) -> None:
        divided = read(connection)
        following = divided.of(tables[0])[1]
        period = Period.of(divided.now, By.MONTH)
        if tables == COMMANDS:
            part, at, upper = following.part, str(self._repeated_from), following.upper
        else:
            part, at, upper = str(period), str(lowest_id(divided.now)), str(lowest_id(period.next().start))
        for table in tables:
            source, target = f"{table}_{FIRST}", f"{table}_{part}"
            ddl(connection, f"ALTER TABLE {table} DETACH PARTITION {source}")
            if tables == COMMANDS:
                ddl(connection, f"ALTER TABLE {table} DETACH PARTITION {target}")
            else:
                like(connection, table, FIRST, part)
            move(connection, source, target, f"{KEYS[table]} >= '{at}'")
            attach(connection, table, source, "MINVALUE", f"'{at}'")
            attach(connection, table, target, f"'{at}'", f"'{upper}'")
            ddl(connection, _WHOLE.format(table=table, owner=tables[0], key=KEYS[table]))

    def drop(self, listener: Listener) -> bool:
        """Drop the first periods as an operator does, once the listener has their events.

        Returns whether they are gone.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is away, or a lock was not to be had in time.
            BusyError: the totals are being counted.
        """
        with disposed(self.stack.database_url) as engine:
            with engine.connect() as connection:
                if self._is_uncounted:
                    totals.recount(connection)
                    self._is_uncounted = False
            with engine.connect() as connection:
                divided = read(connection)
                parts = {one.name for one in divided.partitions if one.part == FIRST}
                events = connection.exec_driver_sql(_TO_BE_HEARD).all() if "events_first" in parts else []
            if listener.first_missing([(row.position, str(row.id)) for row in events]) is not None:
                return False
            # When it is ended between dropping effects and counting those that are left, a relay counts them
            # within a day, or when it starts.
            self._is_uncounted = True
            went = list(acts.drop(engine, OPERATOR, divided, divided.now, None))
            self._is_uncounted = False
            return not any(isinstance(what, str) for _, what in went)
