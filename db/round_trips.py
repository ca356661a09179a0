"""Sessions that make fewer round trips: what needs no answer shares a message with the next statement.

A round trip that does next to nothing takes a third of a millisecond on an idle machine. psycopg2 makes one for
BEGIN, one for each statement and one for COMMIT. Of several statements in one message it returns the answer of the
last. PostgreSQL runs them one after the other, each on a snapshot of its own, and stops at the first error.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from psycopg2 import Error, InternalError
from psycopg2.extensions import (
    ISOLATION_LEVEL_AUTOCOMMIT,
    ISOLATION_LEVEL_DEFAULT,
    ISOLATION_LEVEL_READ_COMMITTED,
    ISOLATION_LEVEL_READ_UNCOMMITTED,
    ISOLATION_LEVEL_REPEATABLE_READ,
    ISOLATION_LEVEL_SERIALIZABLE,
    TRANSACTION_STATUS_IDLE,
    connection,
    cursor,
)
from psycopg2.sql import Composable
from sqlalchemy import Connection

_BEGIN: Mapping[int | None, Sequence[bytes]] = {
    ISOLATION_LEVEL_AUTOCOMMIT: [],
    ISOLATION_LEVEL_DEFAULT: [b"BEGIN"],
    ISOLATION_LEVEL_READ_UNCOMMITTED: [b"BEGIN ISOLATION LEVEL READ UNCOMMITTED"],
    ISOLATION_LEVEL_READ_COMMITTED: [b"BEGIN ISOLATION LEVEL READ COMMITTED"],
    ISOLATION_LEVEL_REPEATABLE_READ: [b"BEGIN ISOLATION LEVEL REPEATABLE READ"],
    ISOLATION_LEVEL_SERIALIZABLE: [b"BEGIN ISOLATION LEVEL SERIALIZABLE"],
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
        self._has_begun = False
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
        """The statement with what comes before it: BEGIN, and what has waited for it.

        Raises:
            psycopg2.InternalError: PostgreSQL could not read the first message of the transaction, so it has not
                begun; roll back.
        """
        if self._has_begun and self.get_transaction_status() == TRANSACTION_STATUS_IDLE:
            raise InternalError("the transaction has not begun, because its first message could not be read")
        before = [*(() if self._has_begun else self._begin), *self._waiting]
        self._has_begun = bool(self._begin)
        self._waiting.clear()
        # A statement may end with a comment, and that with its line.
        return b"\n;".join([*before, statement])

    def commit(self) -> None:
        """Commit, and run before that what still waits. If that fails, the transaction is rolled back."""
        try:
            if self._waiting or self._has_begun:
                self._run(b"COMMIT")
        except Error:
            if not self.closed:
                self.rollback()
            raise
        self._has_begun = False

    def rollback(self) -> None:
        """Roll back. What still waits is not run."""
        self._waiting.clear()
        self._has_begun = False
        if self.closed or self.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            super().cursor(cursor_factory=cursor).execute("ROLLBACK")

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
    It is run at once on any other connection, and where no transaction has been begun.

    Parameters:
        statement: SQL with psycopg2's placeholders (`%(name)s`).
        values: of the placeholders.
    """
    session = connection.connection.dbapi_connection
    if isinstance(session, Session) and connection.in_transaction() and not session.autocommit:
        with session.cursor() as one:
            session.run_later(one.mogrify(statement, values))
    else:
        connection.exec_driver_sql(statement, dict(values or {}))


def flush(connection: Connection) -> None:
    """Run what waits, so that an error of it is raised here."""
    connection.exec_driver_sql("SELECT")
