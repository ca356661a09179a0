"""Three ways to write the rows, with the same SQL texts and the same result.

`rows` is what most people would write first: one statement for each row. `values` uses `execute_values`.
`prepared` is the fastest way that was found. One statement of many CTEs, COPY, and the same statements without
PREPARE were slower.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from psycopg2.extras import execute_values

from benchmarks.floor.rows import Batch, Row


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that writes rows.

    Parameters:
        types: the SQL types of a row's values, separated by spaces.
        of_rows: the SQL text for many rows, with `{rows}` in the place of their source.
        of_row: a faster SQL text for one row, with `{}` for each value, or None when there is none.
        constants: constants that `of_rows` needs after the values of each row.
    """

    types: str
    of_rows: str
    of_row: str | None = None
    constants: str = ""

    def writing(self, rows: str) -> str:
        """Return the SQL text that writes the rows of the source `rows`."""
        return self.of_rows.format(rows=rows)

    def writing_row(self, values: Sequence[str]) -> str:
        """Return the SQL text that writes one row of these values."""
        if self.of_row is not None:
            return self.of_row.format(*values)
        return self.writing(f"VALUES {self.row(values)}")

    def row(self, values: Sequence[str]) -> str:
        """Return a row of these values and the constants."""
        return f"({', '.join(values)}{self.constants})"

    def placeholders(self) -> Sequence[str]:
        """Return psycopg2's placeholders for the values of a row."""
        return ["%s"] * len(self.types.split())

    def parameters(self) -> Sequence[str]:
        """Return the parameters of PREPARE for the values of a row."""
        return [f"${number}" for number, _ in enumerate(self.types.split(), 1)]


# There is a cast wherever a value from VALUES would otherwise be text.
STATEMENTS = {
    "inbox": Statement(
        "text text bytea timestamptz",
        """
        WITH v (command_id, type, fingerprint, handled_at) AS ({rows}), entries AS (
            INSERT INTO inbox (source, command_id, type, fingerprint)
            SELECT '/bench', command_id, type, fingerprint::bytea FROM v
            RETURNING id, command_id
        )
        INSERT INTO outcomes (inbox_id, outcome, handled_at)
        SELECT id, 'applied', handled_at::timestamptz FROM entries JOIN v USING (command_id)""",
        """
        WITH entry AS (
            INSERT INTO inbox (source, command_id, type, fingerprint) VALUES ('/bench', {}, {}, {}) RETURNING id
        )
        INSERT INTO outcomes (inbox_id, outcome, handled_at) SELECT id, 'applied', {} FROM entry""",
    ),
    "created": Statement(
        "text text timestamptz text bool timestamptz timestamptz bool int uuid",
        """
        INSERT INTO attempts (exam_id, user_id, created_at, status, taking_as_proctored, started_at,
            completed_at, credit_owed, version, id, is_sample_attempt) {rows}""",
        constants=", false",
    ),
    "changed": Statement(
        "text bool timestamptz timestamptz bool int uuid",
        """
        UPDATE attempts SET status = v.status, taking_as_proctored = v.proctored,
            started_at = v.started_at::timestamptz, completed_at = v.completed_at::timestamptz,
            credit_owed = v.credit_owed, version = v.version
        FROM ({rows}) v (status, proctored, started_at, completed_at, credit_owed, version, id)
        WHERE attempts.id = v.id::uuid""",
        """
        UPDATE attempts SET status = {}, taking_as_proctored = {}, started_at = {}, completed_at = {},
            credit_owed = {}, version = {}
        WHERE id = {}""",
    ),
    "transitions": Statement(
        "uuid uuid int text text timestamptz text",
        """
        INSERT INTO transitions (id, attempt_id, version, from_status, to_status, at, command_id, source)
        {rows}""",
        constants=", '/bench'",
    ),
    "effects": Statement(
        "uuid text uuid text text jsonb text",
        """
        INSERT INTO effects (id, kind, attempt_id, user_id, target, payload, command_id, source, state)
        {rows}""",
        constants=", '/bench', 'pending'",
    ),
}

RENEW = """
    UPDATE shards SET lease_until = clock_timestamp() + interval '5 s'
    WHERE shard = 0 AND owner = 'floor' AND epoch = {epoch}"""
NOTIFY = "NOTIFY invigilator_effects"


class Way(Protocol):
    """A way to write a batch."""

    def commit(self, batch: Batch, epoch: int) -> None:
        """Write a batch and renew the shard's lease, in one transaction."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Sends every statement by itself, as text."""

    connection: Connection
    write: Callable[[Cursor, Statement, Sequence[Row]], None]

    def commit(self, batch: Batch, epoch: int) -> None:
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(RENEW.format(epoch="%s"), [epoch])
            for name, rows in batch.rows.items():
                self.write(cursor, STATEMENTS[name], rows)
            if "effects" in batch.rows:
                cursor.execute(NOTIFY)


def _rows(cursor: Cursor, statement: Statement, rows: Sequence[Row]) -> None:
    sql = statement.writing_row(statement.placeholders())
    for row in rows:
        cursor.execute(sql, row)


def _values(cursor: Cursor, statement: Statement, rows: Sequence[Row]) -> None:
    template = statement.row(statement.placeholders())
    execute_values(cursor, statement.writing("VALUES %s"), rows, template, page_size=len(rows))


@dataclass(frozen=True, slots=True)
class Prepared:
    """Uses prepared statements and one round trip for each commit."""

    connection: Connection
    one_row: bool
    """Whether a statement takes one row, which is faster for few rows, or arrays of columns."""

    def prepare(self) -> None:
        """Prepare the statements. This is done once for each connection."""
        array = "" if self.one_row else "[]"
        with self.connection.cursor() as cursor:
            cursor.execute(f"PREPARE renew (bigint) AS {RENEW.format(epoch='$1')}")
            for name, statement in STATEMENTS.items():
                types = ", ".join(one + array for one in statement.types.split())
                cursor.execute(f"PREPARE {name} ({types}) AS {self._text(statement)}")

    def _text(self, statement: Statement) -> str:
        parameters = statement.parameters()
        if self.one_row:
            return statement.writing_row(parameters)
        columns = f"unnest({', '.join(parameters)})"
        return statement.writing(f"SELECT *{statement.constants} FROM {columns}")  # noqa: S608 - both are ours

    def commit(self, batch: Batch, epoch: int) -> None:
        sql = ["BEGIN", "EXECUTE renew (%s)"]
        values: list[Any] = [epoch]
        for name, rows in batch.rows.items():
            for row in rows if self.one_row else [map(_array, zip(*rows, strict=True))]:
                values += row
                sql.append(f"EXECUTE {name} ({', '.join(STATEMENTS[name].placeholders())})")
        if "effects" in batch.rows:
            sql.append(NOTIFY)
        sql.append("COMMIT")
        with self.connection.cursor() as cursor:
            cursor.execute("; ".join(sql), values)


def _array(values: Sequence[Any]) -> str:
    """Return a column as PostgreSQL's array literal. It is cheaper than psycopg2's `ARRAY[…]` on both sides."""
    texts = ["NULL" if value is None else str(value) for value in values]
    if texts[0][0] in "{\\":  # JSON and bytes need quotes
        texts = ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts]
    return "{" + ",".join(texts) + "}"


PLAIN = {"rows": _rows, "values": _values}
PREPARED = "prepared"


def way(how: str, connection: Connection, commit_every: int) -> Way:
    """Return a way by its name, which is a key of `PLAIN`, or `PREPARED`."""
    if how in PLAIN:
        return Plain(connection, PLAIN[how])
    prepared = Prepared(connection, one_row=commit_every == 1)
    prepared.prepare()
    return prepared
