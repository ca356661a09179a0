"""Sessions that make fewer round trips: what needs no answer shares a message with the next statement.

A round trip that does next to nothing takes a third of a millisecond on an idle machine. psycopg2 makes one for
BEGIN, one for each statement and one for COMMIT. Of several statements in one message it returns the answer of the
last. PostgreSQL runs them one after the other, each on a snapshot of its own, and stops at the first error.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from psycopg2.extensions import (
    ISOLATION_LEVEL_AUTOCOMMIT,
    ISOLATION_LEVEL_DEFAULT,
    ISOLATION_LEVEL_READ_COMMITTED,
    ISOLATION_LEVEL_REPEATABLE_READ,
    TRANSACTION_STATUS_IDLE,
    connection,
    cursor,
)
from psycopg2.sql import Composable
from sqlalchemy import Connection

_BEGIN: Mapping[int | None, Sequence[bytes]] = {
    ISOLATION_LEVEL_AUTOCOMMIT: [],
    ISOLATION_LEVEL_DEFAULT: [b"BEGIN"],
    ISOLATION_LEVEL_READ_COMMITTED: [b"BEGIN"],
    ISOLATION_LEVEL_REPEATABLE_READ: [b"BEGIN ISOLATION LEVEL REPEATABLE READ"],
}


class Session(connection):
    """A connection of psycopg2 whose BEGIN goes with the first statement of a transaction.

    It has no cursors on the server: psycopg2 takes it for a connection that commits each statement.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        super().set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT)
        self.cursor_factory = _Cursor
        self._begin = _BEGIN[ISOLATION_LEVEL_DEFAULT]
        self._waiting: list[bytes] = []

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own."""
        return not self._begin

    @autocommit.setter
    def autocommit(self, is_on: bool) -> None:
        self.set_isolation_level(ISOLATION_LEVEL_AUTOCOMMIT if is_on else ISOLATION_LEVEL_DEFAULT)

    def set_isolation_level(self, level: int | None) -> None:
        """Choose how the next transactions begin."""
        self._begin = _BEGIN[level]

    def run_later(self, statement: bytes) -> None:
        """Run a statement of this transaction in one message with the next one, or with COMMIT."""
        self._waiting.append(statement)

    def message(self, statement: bytes) -> bytes:
        """The statement with what comes before it: BEGIN, and what has waited for it."""
        is_first = self.get_transaction_status() == TRANSACTION_STATUS_IDLE
        before = [*(self._begin if is_first else ()), *self._waiting]
        self._waiting.clear()
        # A statement may end with a comment, and that with its line.
        return b"\n;".join([*before, statement])

    def commit(self) -> None:
        """Commit, and run before that what still waits."""
        if self._waiting or self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            self._run(b"COMMIT")

    def rollback(self) -> None:
        """Roll back. What still waits is not run."""
        self._waiting.clear()
        if self.closed or self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            self._run(b"ROLLBACK")

    def _run(self, statement: bytes) -> None:
        with self.cursor() as one:
            one.execute(statement)


class _Cursor(cursor):
    """A cursor of a `Session`."""

    connection: Session

    def execute(
        self, query: str | bytes | Composable, values: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> None:
        super().execute(self.connection.message(self.mogrify(query, values)))

    def _refuse(self, *_values: object, **_named: object) -> NoReturn:
        raise NotImplementedError("psycopg2 would run this outside of the transaction: use execute")

    callproc = copy_expert = copy_from = copy_to = executemany = _refuse


def later(connection: Connection, statement: str, values: Mapping[str, Any] | None = None) -> None:
    """Run a statement of a transaction whose answer nobody needs.

    A `Session` runs it in one message with the next one, or with COMMIT, which then raises the error that it meets.
    Any other connection runs it at once.

    Parameters:
        statement: SQL with psycopg2's placeholders (`%(name)s`).
        values: of the placeholders.
    """
    session = connection.connection.dbapi_connection
    if isinstance(session, Session) and not session.autocommit:
        with session.cursor() as one:
            session.run_later(one.mogrify(statement, values))
    else:
        connection.exec_driver_sql(statement, dict(values or {}))
