"""Old rows in partitions: each table that grows is divided by month or by year, so that a period goes as a whole.

A site asks for it (`db.partitioning` turns the tables into partitioned ones). Effects, tries and events are divided
by their ids, which begin with the time. Commands and outcomes are divided by the inbox's number, which jumps ahead
when a period begins. What has no partition of its own is in the table's `rest`, so that nothing is ever refused.

docs/decisions/0049-old-rows-in-partitions.md has the reasons.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import total_ordering
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from db.totals import RECOUNT_LOCK
from events.errors import InvigilatorError

KEYS: Final[Mapping[str, str]] = {
    "effects": "id",
    "tries": "effect_id",
    "events": "id",
    "inbox": "id",
    "outcomes": "inbox_id",
}
"""The tables that may be divided, and the column that each is divided by."""
GROUPS: Final = (("effects", "tries"), ("events",), ("inbox", "outcomes"))
"""Tables whose partitions have the same bounds, and come and go together."""
EFFECTS, EVENTS, COMMANDS = GROUPS
FIRST: Final = "first"
"""Ends the name of the partition that was the whole table."""
REST: Final = "rest"
"""Ends the name of the partition for what has none of its own."""
AHEAD: Final = 2
"""For so many periods after this one there is a partition."""
NUMBERS_OF_A_PERIOD: Final = 10**12
"""More than any period has commands."""
MOST_MOVED: Final = 10_000
"""At most so many rows are moved out of `rest` while everybody waits."""
LOCK_TIMEOUT: Final = "200ms"
"""The longest wait for a lock behind which everybody else waits."""
QUIET_TIMEOUT: Final = "2s"
"""The longest wait for a lock behind which nobody waits who reads or writes. PostgreSQL ends an autovacuum for
somebody who has waited for a second."""
ADDS_KEY: Final = "SHARE ROW EXCLUSIVE"
"""The lock on the attempts for attaching a new partition of effects: it gets the foreign key to the attempts. Those
who only read attempts do not wait for it."""
CHANGES_KEYS: Final = "ACCESS EXCLUSIVE"
"""The lock on the attempts for attaching a table that has the foreign key already. It has triggers on the attempts,
which go."""
LOCK: Final = 491_627_112
"""The key of an advisory lock, an arbitrary number."""

_NAME = re.compile(r"(?P<year>\d{4})(?:_(?P<month>\d\d))?")
_BOUND = re.compile(r"FROM \('?(?P<lower>[^')]+)'?\) TO \('?(?P<upper>[^')]+)'?\)")


class PartitionsError(InvigilatorError):
    """Partitions cannot be made or dropped so."""

    code = "partitions"


class BusyError(PartitionsError):
    """Something is under way that everybody would wait for."""


class By(StrEnum):
    """How long a period is."""

    MONTH = "month"
    YEAR = "year"


@total_ordering
@dataclass(frozen=True, slots=True)
class Period:
    """A month or a year, in UTC.

    Parameters:
        year: such as 2026.
        month: from 1 to 12. None for a whole year.

    Example:
        >>> str(Period(2026, 12).next()), str(Period(2026).next())
        ('2027_01', '2027')
    """

    year: int
    month: int | None = None

    @classmethod
    def of(cls, moment: datetime, by: By) -> "Period":
        """The period that a moment (with a time zone) is in."""
        at = moment.astimezone(UTC)
        return cls(at.year, at.month if by is By.MONTH else None)

    @classmethod
    def read(cls, text: str) -> "Period | None":
        """The period whose `str` this is. None if it is none's."""
        found = _NAME.fullmatch(text)
        return found and cls(int(found["year"]), int(found["month"]) if found["month"] else None)

    @property
    def start(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, self.month or 1, 1, tzinfo=UTC)

    @property
    def by(self) -> By:
        """Whether it is a month or a year."""
        return By.YEAR if self.month is None else By.MONTH

    def next(self) -> "Period":
        """The period after it."""
        if self.month is None:
            return Period(self.year + 1)
        return Period(self.year + self.month // 12, self.month % 12 + 1)

    def __str__(self) -> str:
        return f"{self.year:04}" if self.month is None else f"{self.year:04}_{self.month:02}"

    def __lt__(self, other: "Period") -> bool:
        return self.start < other.start


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of one table.

    Parameters:
        table: the partitioned table.
        name: the partition's own name.
        lower, upper: its bounds as PostgreSQL has them. None where it has none.
        rows: an estimate; None where PostgreSQL has not counted yet.
        size: bytes, indexes included.
    """

    table: str
    name: str
    lower: str | None
    upper: str | None
    rows: int | None = None
    size: int = 0

    @property
    def part(self) -> str:
        """The end of its name: a period, `first` or `rest`."""
        return self.name.removeprefix(f"{self.table}_")

    @property
    def period(self) -> Period | None:
        """The period that it was made for."""
        return Period.read(self.part)

    @property
    def is_rest(self) -> bool:
        """Whether it is for what has no partition of its own."""
        return self.upper is None

    @property
    def until(self) -> datetime | None:
        """The end of the time that its ids are from. None where ids do not tell the time, and without an end."""
        return None if self.upper is None or self.table in COMMANDS else moment_of(UUID(self.upper))


@dataclass(frozen=True, slots=True)
class Divided:
    """Which tables are divided, and into what."""

    now: datetime
    """The database's clock."""
    partitions: Sequence[Partition]
    is_owner: bool
    """Whether the session's role owns the tables, so that it may make and drop partitions."""

    def of(self, table: str) -> list[Partition]:
        """The partitions of a table, oldest first, `rest` last."""
        return [one for one in self.partitions if one.table == table]

    def is_divided(self, table: str) -> bool:
        """Whether a table has partitions."""
        return bool(self.of(table))

    @property
    def by(self) -> By | None:
        """How long the periods are. None where nothing is divided."""
        return next((one.period.by for one in self.partitions if one.period is not None), None)

    def lacking(self) -> list[str]:
        """The partitions of the next period that are missing, by name. It has no rows yet, so they can be made."""
        return self._missing(lambda this: this.next())

    def in_rest(self) -> list[str]:
        """The partitions of this period that are missing, by name. What would be in them is in `rest`.

        They cannot be made while that is too much, or is being worked on.
        """
        return self._missing(lambda this: this)

    def _missing(self, of: Callable[[Period], Period]) -> list[str]:
        return [
            f"{tables[0]}_{period}"
            for tables, period in missing(self)
            if tables != COMMANDS and period == of(Period.of(self.now, period.by))
        ]


def lowest_id(moment: datetime) -> UUID:
    """The lowest id of version 7 that can be made from a moment (with a time zone) on."""
    return UUID(int=round(moment.timestamp() * 1000) << 80)


def moment_of(uuid: UUID) -> datetime:
    """The moment at which an id of version 7 was made."""
    return datetime.fromtimestamp((uuid.int >> 80) / 1000, UTC)


_PARTITIONS = """
SELECT parent.relname AS table_name, part.relname AS name, pg_get_expr(part.relpartbound, part.oid) AS bound, {more}
FROM unnest(%(tables)s::text[]) AS asked (name)
JOIN pg_class AS parent ON parent.oid = to_regclass(quote_ident(asked.name))
JOIN pg_inherits ON inhparent = parent.oid
JOIN pg_class AS part ON part.oid = inhrelid
"""

_WITH_SIZES = _PARTITIONS.format(
    more="nullif(part.reltuples, -1)::bigint AS rows, pg_total_relation_size(part.oid) AS size"
)

_WITH_NOW = _PARTITIONS.format(more="NULL::bigint AS rows, 0 AS size, clock_timestamp() AS now")

_ROLE = """
SELECT clock_timestamp() AS now, bool_and(pg_has_role(relowner, 'USAGE')) AS is_owner
FROM pg_class
WHERE oid IN (SELECT to_regclass(quote_ident(name)) FROM unnest(%(tables)s::text[]) AS name)
"""


def read(connection: Connection) -> Divided:
    """Read which tables are divided, and into what."""
    asked = {"tables": list(KEYS)}
    role = connection.exec_driver_sql(_ROLE, asked).one()
    rows = connection.exec_driver_sql(_WITH_SIZES, asked).all()
    return Divided(role.now, _found(rows), bool(role.is_owner))


def lacking(connection: Connection) -> list[str]:
    """`Divided.lacking`, in one cheap statement. Empty where nothing is divided."""
    rows = connection.exec_driver_sql(_WITH_NOW, {"tables": list(KEYS)}).all()
    if not rows:
        return []
    return Divided(rows[0].now, _found(rows), is_owner=False).lacking()


def _found(rows: Sequence[Any]) -> list[Partition]:
    # One that was dropped since the transaction's snapshot is still listed, without a bound or a size.
    return sorted((_partition(row) for row in rows if None not in (row.bound, row.size)), key=_order)


def _partition(row: Any) -> Partition:
    one = Partition(row.table_name, row.name, None, None, row.rows, row.size)
    limits = _BOUND.search(row.bound)
    return one if limits is None else replace(one, lower=limits["lower"], upper=limits["upper"])


def _order(one: Partition) -> tuple[int, bool, float, str]:
    upper = one.upper or "0"
    number = float(upper) if one.table in COMMANDS else float(UUID(upper.zfill(32)).int)
    return list(KEYS).index(one.table), one.is_rest, number, one.name


# --- making ------------------------------------------------------------------------------------------------

_LIMIT_WAITS = f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"

# The lock is given back at once, so that nobody leaves a count out because of it.
_NOBODY_COUNTS = """
SELECT CASE WHEN pg_try_advisory_lock(%(key)s) THEN pg_advisory_unlock(%(key)s) ELSE false END
"""

_OPTIONS = (
    "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = to_regclass(quote_ident(%(name)s))"
)

_GRANTS = """
SELECT format(
    'GRANT %%s ON %%s TO %%s%%s',
    privilege_type,
    quote_ident(%(to)s),
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
    CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
)
FROM pg_class CROSS JOIN LATERAL aclexplode(relacl)
WHERE pg_class.oid = to_regclass(quote_ident(%(name)s)) AND grantee <> relowner
"""

_OWNER = "SELECT relowner::regrole::text FROM pg_class WHERE oid = to_regclass(quote_ident(%(name)s))"


_INDEXES = """
SELECT index.relname AS name, indisunique AS is_unique, indisprimary AS is_primary,
    pg_get_indexdef(index.oid) AS sql,
    pg_constraint.conname AS key, pg_get_constraintdef(pg_constraint.oid) AS key_sql
FROM pg_index
JOIN pg_class AS index ON index.oid = indexrelid
LEFT JOIN pg_constraint ON conindid = indexrelid AND contype IN ('p', 'u')
WHERE indrelid = to_regclass(quote_ident(%(table)s))
ORDER BY index.relname
"""


def indexes_of(connection: Connection, table: str) -> Sequence[Any]:
    """The indexes of a table or partition, by name, each with the statement that makes it."""
    return connection.exec_driver_sql(_INDEXES, {"table": table}).all()


def index_name(name: str, part: str) -> str:
    """The name that an index of a divided table has on one of its parts."""
    return f"{name}_{part}"


def like(connection: Connection, table: str, template: str, part: str) -> None:
    """Create a table that can become a partition: with the columns, checks, indexes, storage parameters, owner and
    grants of another one. Foreign keys and triggers come from the partitioned table.

    Parameters:
        table: the partitioned table.
        template: the end of the name of the partition that is there.
        part: the end of the name of the new one.
    """
    suffix, template, name = f"_{template}", f"{table}_{template}", f"{table}_{part}"
    ddl(
        connection,
        f"CREATE TABLE {name} (LIKE {template} INCLUDING ALL EXCLUDING IDENTITY EXCLUDING INDEXES)",
    )
    for index in indexes_of(connection, template):
        new = index_name(index.name.removesuffix(suffix), part)
        if index.key is not None:
            ddl(connection, f"ALTER TABLE {name} ADD CONSTRAINT {new} {index.key_sql}")
        else:
            kind = "UNIQUE INDEX" if index.is_unique else "INDEX"
            ddl(connection, f"CREATE {kind} {new} ON {name} USING {index.sql.split(' USING ', 1)[1]}")
    if options := connection.exec_driver_sql(_OPTIONS, {"name": template}).scalar_one():
        ddl(connection, f"ALTER TABLE {name} SET ({options})")
    share(connection, template, name)


def share(connection: Connection, template: str, name: str) -> None:
    """Give a table the owner and the grants of another one."""
    owner = connection.exec_driver_sql(_OWNER, {"name": template}).scalar_one()
    ddl(connection, f"ALTER TABLE {name} OWNER TO {owner}")
    for grant in connection.exec_driver_sql(_GRANTS, {"name": template, "to": name}).scalars().all():
        ddl(connection, grant)


def ddl(connection: Connection, statement: str) -> None:
    """Execute a statement that has no parameters."""
    connection.exec_driver_sql(statement.replace("%", "%%"))


def limit_waits(connection: Connection) -> None:
    """Let this transaction give up when it waits too long for a lock, because everybody else queues behind it.

    Until it ends, nobody else divides, makes or drops.

    Raises:
        BusyError: the totals are being counted, which reads all effects.
    """
    ddl(connection, _LIMIT_WAITS)
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%(key)s)", {"key": LOCK})
    if not connection.exec_driver_sql(_NOBODY_COUNTS, {"key": RECOUNT_LOCK}).scalar_one():
        raise BusyError("the totals are being counted: try again")


def lock(connection: Connection, tables: Sequence[str], attempts: str | None = None) -> None:
    """Let everybody else wait until this transaction ends, as soon as all who use the tables have come to an end.

    Nobody may hold what we wait for, and wait for what we have. The numberer of events locks the log first and the
    events then, so this does, too. A worker has effects when it reads attempts, so the attempts come last. Batches
    and cascades read attempts before effects. They are stopped before that, where both begin: at the learners.

    Parameters:
        attempts: how the attempts are locked with the effects, `ADDS_KEY` or `CHANGES_KEYS`. None leaves them.

    Raises:
        sqlalchemy.exc.DBAPIError: a lock was not to be had in time.
    """
    # What is locked before and after the tables, and how.
    before = {"learners": "EXCLUSIVE"} if tables == EFFECTS else {}
    after = {"attempts": attempts} if tables == EFFECTS and attempts is not None else {}
    modes = before | dict.fromkeys(tables, "ACCESS EXCLUSIVE") | after
    ddl(connection, f"SET LOCAL lock_timeout = '{QUIET_TIMEOUT}'")
    ddl(connection, f"LOCK TABLE {', '.join(modes)} IN SHARE UPDATE EXCLUSIVE MODE")
    ddl(connection, _LIMIT_WAITS)
    if tables == EVENTS:
        ddl(connection, "SELECT FROM event_log FOR UPDATE")
    for table, mode in modes.items():
        ddl(connection, f"LOCK TABLE {table} IN {mode} MODE")


def exists(connection: Connection, name: str) -> bool:
    """Whether there is a table of that name."""
    found = connection.exec_driver_sql(
        "SELECT to_regclass(quote_ident(%(name)s)) IS NOT NULL", {"name": name}
    )
    return bool(found.scalar_one())


def missing(divided: Divided) -> Iterator[tuple[Sequence[str], Period]]:
    """Yield the partitions that are to be made: the tables, and the period.

    A period of effects and events is made ahead. One of commands is begun when it is there.
    """
    return missing_of(divided, divided.by, divided.now) if divided.by is not None else iter(())


def missing_of(divided: Divided, by: By, now: datetime) -> Iterator[tuple[Sequence[str], Period]]:
    """As `missing`, where nothing tells yet how long a period is."""
    this = Period.of(now, by)
    for tables in GROUPS:
        partitions = divided.of(tables[0])
        if not partitions:
            continue
        period = this
        for _ in range(1 if tables == COMMANDS else AHEAD + 1):
            if not _is_there(partitions, period):
                yield tables, period
            period = period.next()


def _is_there(partitions: Sequence[Partition], period: Period) -> bool:
    return any(
        one.period == period or (one.until is not None and one.until > period.start and one.part == FIRST)
        for one in partitions
    )


def make(connection: Connection, tables: Sequence[str], period: Period) -> bool:
    """Make the partition of a period for tables that share their bounds, in the caller's transaction.

    Returns whether it was made. It is not where too much of the period is in `rest` already, or something of it is
    just being worked on: that stays there. Nor where another process has just made it.

    Raises:
        sqlalchemy.exc.DBAPIError: a lock was not to be had in time.
    """
    limit_waits(connection)
    if exists(connection, f"{tables[0]}_{period}"):
        return False
    if tables == COMMANDS:
        begin_commands(connection, str(period))
        return True
    lower, upper = lowest_id(period.start), lowest_id(period.next().start)
    if not _may_move(connection, tables[0], lower, upper):
        return False  # before everybody waits
    if tables == EFFECTS or _in_rest(connection, tables, lower, upper):
        # Nobody writes meanwhile, so that nothing of the period comes into `rest` after it was moved.
        lock(connection, tables, ADDS_KEY)
        if not _may_move(connection, tables[0], lower, upper):
            return False
    for table in tables:
        name = f"{table}_{period}"
        like(connection, table, REST, str(period))
        move(connection, f"{table}_{REST}", name, f"{KEYS[table]} >= '{lower}' AND {KEYS[table]} < '{upper}'")
        attach(connection, table, name, f"'{lower}'", f"'{upper}'")
    return True


def _in_rest(connection: Connection, tables: Sequence[str], lower: UUID, upper: UUID) -> bool:
    return any(
        connection.exec_driver_sql(
            f"SELECT EXISTS (SELECT FROM {table}_{REST} "  # noqa: S608 - names are ours
            f"WHERE {KEYS[table]} >= %(lower)s AND {KEYS[table]} < %(upper)s)",
            {"lower": str(lower), "upper": str(upper)},
        ).scalar_one()
        for table in tables
    )


def _may_move(connection: Connection, table: str, lower: UUID, upper: UUID) -> bool:
    within = f"FROM {table}_{REST} WHERE id >= %(lower)s AND id < %(upper)s"
    values = {"lower": str(lower), "upper": str(upper), "most": MOST_MOVED}
    limited = f"SELECT count(*) FROM (SELECT {within} LIMIT %(most)s + 1) AS few"  # noqa: S608 - names are ours
    if connection.exec_driver_sql(limited, values).scalar_one() > MOST_MOVED:
        return False
    busy = f"SELECT EXISTS (SELECT {within} AND {UNSETTLED})"
    return table != "effects" or not connection.exec_driver_sql(busy, values).scalar_one()


UNSETTLED: Final = "(state = 'running' OR kind = 'cascade_decline' AND state = 'pending')"
"""Effects that are not moved. A session that has waited for the move may look with a snapshot of before it, in
which a moved row is in neither place. For these that would matter: the end of a try would be lost, or a cascade
passed over. For all others such a session only finds less to do, and looks again."""


def move(connection: Connection, source: str, target: str, condition: str) -> None:
    """Move the rows that fit a condition to another table with the same columns."""
    moved = f"""
    WITH moved AS (DELETE FROM {source} WHERE {condition} RETURNING *)
    INSERT INTO {target} OVERRIDING SYSTEM VALUE SELECT * FROM moved
    """  # noqa: S608 - names are ours
    ddl(connection, moved)


def attach(connection: Connection, table: str, name: str, lower: str, upper: str) -> None:
    """Make a table a partition of another one, with these bounds."""
    ddl(connection, f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({lower}) TO ({upper})")


def begin_commands(connection: Connection, part: str) -> None:
    """Begin a partition of the inbox and of the outcomes, in the caller's transaction: the numbers jump ahead.

    Parameters:
        part: the end of its name.
    """
    inbox, outcomes = COMMANDS
    # It waits until no transaction that has inserted is open. So whoever inserts after this sees what is there.
    ddl(connection, f"LOCK TABLE {inbox}, {outcomes} IN SHARE ROW EXCLUSIVE MODE")
    [template, *_] = read(connection).of(inbox)[-1:]
    lower = int(str(template.upper))
    for table in COMMANDS:
        like(connection, table, template.part, part)
        attach(connection, table, f"{table}_{part}", str(lower), str(lower + NUMBERS_OF_A_PERIOD))
    # Unlike setval, this is undone with the transaction.
    sequence = connection.exec_driver_sql(f"SELECT pg_get_serial_sequence('{inbox}', 'id')").scalar_one()
    ddl(connection, f"ALTER SEQUENCE {sequence} RESTART WITH {lower}")
