"""Engines: the one place where connections to PostgreSQL are configured."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

from db import dsn, wake
from db.errors import Failure, UnfitDatabaseError, classify, is_full
from db.prepared import PREPARES
from db.round_trips import Session, later

CONNECT_TIMEOUT_S = 10
POOL_SIZE = 8  # connections that are kept. There may be as many more as a process has threads
ENCODING = "UTF8"

_DEFAULTS = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # ms until data that was sent into a cut cable is given up, too
}
# A standby refuses writes, and may not show a relay what is due. libpq tries the next host then.
_WRITES = {"target_session_attrs": "read-write"}
_VARIABLES = {"connect_timeout": "PGCONNECT_TIMEOUT", "target_session_attrs": "PGTARGETSESSIONATTRS"}


def make_engine(
    database_url: str,
    *,
    application_name: str,
    session_settings: str = "",
    pre_ping: bool = True,
    autocommit: bool = False,
    writes: bool = True,
) -> Engine:
    """An engine for one process. It connects when a thread first asks for a connection.

    An error that says that the database cannot serve us now ends the connection that met it and every other one
    that the engine keeps: they may lead to a server that is no longer the primary.

    Parameters:
        database_url: as `db.dsn.parse` takes it. Its time-outs, keep-alives and `target_session_attrs` override
            the defaults here. Its `application_name` and `client_encoding` are ignored.
        application_name: what `pg_stat_activity` shows.
        session_settings: libpq options such as `-c lock_timeout=5s`, added to those of the URL (else of
            PGOPTIONS). PgBouncer in transaction mode refuses them, so only processes that need a direct connection
            pass any. Their statements may be prepared.
        pre_ping: whether to ask before each transaction if the connection is alive. That costs a round trip. A
            process that begins anew at the first error can do without.
        autocommit: whether each statement is a transaction of its own. That saves the round trips of BEGIN and
            ROLLBACK.
        writes: whether the engine needs a primary, and a database that can hold every text. Its first use raises
            `UnfitDatabaseError` for one that cannot. False allows a standby.

    Raises:
        ValueError: no database URL; see `db.dsn.parse`.
    """
    engine = create_engine(
        "postgresql+psycopg2://",
        pool_size=POOL_SIZE,
        max_overflow=-1,
        pool_pre_ping=pre_ping,
        isolation_level="AUTOCOMMIT" if autocommit else None,
        hide_parameters=True,  # names and addresses may be among them
        execution_options={PREPARES: bool(session_settings)},
        connect_args=_parameters(database_url, application_name, session_settings, writes)
        | ({"connection_factory": Session} if session_settings else {}),
    )
    event.listen(engine, "handle_error", _on_error)
    if writes:
        event.listen(engine, "connect", _check_encoding)
    return engine


def _parameters(
    database_url: str, application_name: str, session_settings: str, writes: bool
) -> dict[str, str]:
    given = dsn.parse(database_url)
    defaults = {
        name: value
        for name, value in (_DEFAULTS | (_WRITES if writes else {})).items()
        if os.environ.get(_VARIABLES.get(name, "")) is None
    }
    ours = {"application_name": application_name, "client_encoding": ENCODING}
    if session_settings:
        # Ours alone would replace the given ones, such as a search_path that says where the tables are.
        options = given.get("options") or os.environ.get("PGOPTIONS", "")
        ours["options"] = f"{options} {session_settings}".strip()
    return defaults | given | ours


def _on_error(context: ExceptionContext) -> None:
    error = context.sqlalchemy_exception
    if not isinstance(error, DBAPIError) or classify(error) is not Failure.UNAVAILABLE:
        return
    context.is_disconnect = True
    if is_full(error) and context.engine is not None:
        suspects = _warned_of(context.connection)
        with suppress(DBAPIError), context.engine.connect() as connection:
            if who := wake.who_fills_the_queue(connection, suspects):
                context.original_exception.add_note(who)


def _warned_of(connection: Connection | None) -> list[int]:
    """The process ids in the last warning that PostgreSQL has sent to a session."""
    notices: list[str] = getattr(connection and connection.connection.dbapi_connection, "notices", [])
    return [int(pid) for notice in notices[-1:] for pid in re.findall(r"PID (\d+)", notice)]


def _check_encoding(connection: Any, _record: object) -> None:
    # The server reports it to each new session. A pooler may not.
    encoding = connection.info.parameter_status("server_encoding") or ENCODING
    if encoding != ENCODING:
        database = connection.info.dbname
        connection.close()
        raise UnfitDatabaseError(
            f"the database {database} has the encoding {encoding}, in which names get lost: make one with "
            f"CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and move there with pg_dump"
        )


# For this transaction only: PgBouncer in transaction mode would not keep a setting of the session.
_LIMIT_STATEMENTS = """
SELECT
    set_config('statement_timeout', %(limit)s, true),
    set_config('idle_in_transaction_session_timeout', '5s', true)
"""


def limit_statements(connection: Connection, seconds: float) -> None:
    """Let no statement of this transaction take longer than so many seconds, waits for locks included."""
    milliseconds = max(1, int(seconds * 1000))
    later(connection, _LIMIT_STATEMENTS, {"limit": f"{milliseconds}ms"})


@contextmanager
def looking(engine: Engine) -> Iterator[Connection]:
    """A connection for looks, each of which is a transaction of its own. That saves two round trips for a look."""
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read-only connection. All queries of a transaction see the database at one moment."""
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
