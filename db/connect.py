"""Engines: the one place where connections to PostgreSQL are configured."""

from sqlalchemy import ColumnElement, Connection, Engine, create_engine, func, select

from db.prepared import PREPARES

CONNECT_TIMEOUT_S = 10
IDLE_S = 5  # in a transaction that holds locks, between two statements
POOL_SIZE = 8  # connections that are kept; the threads of a process bound how many there may be
KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # ms: what was sent into a cut cable is given up, too
}


def make_engine(
    database_url: str, *, application_name: str, session_settings: str = "", pre_ping: bool = True
) -> Engine:
    """An engine for one process. Nothing connects yet; every thread that asks gets a connection.

    Parameters:
        database_url: `postgresql+psycopg2://…`.
        application_name: what `pg_stat_activity` shows.
        session_settings: libpq options such as `-c lock_timeout=5s`. PgBouncer in transaction mode refuses
            them, so only processes that need a direct connection pass any. Their statements may be prepared.
        pre_ping: ask before each transaction whether the connection is still alive. That costs a round trip, which
            whoever begins anew at the first error can save.
    """
    return create_engine(
        database_url,
        pool_size=POOL_SIZE,
        max_overflow=-1,
        pool_pre_ping=pre_ping,
        hide_parameters=True,  # they may be names and addresses
        execution_options={PREPARES: bool(session_settings)},
        connect_args={
            "application_name": application_name,
            "connect_timeout": CONNECT_TIMEOUT_S,
            **KEEPALIVES,
            **({"options": session_settings} if session_settings else {}),
        },
    )


def limit_idleness() -> ColumnElement[str]:
    """To select beside the first rows that a transaction locks: ends its session when its process stands still.

    A worker that is stopped in a transaction would else keep a shard waiting for its locks, however long.
    No setting of the session, which PgBouncer in transaction mode would not keep.
    """
    return func.set_config("idle_in_transaction_session_timeout", f"{IDLE_S}s", True)


def limit_statements(connection: Connection, seconds: float) -> None:
    """Let no statement of this transaction take longer than so many seconds, waiting for locks included."""
    milliseconds = max(1, int(seconds * 1000))
    limit = func.set_config("statement_timeout", str(milliseconds), True)
    connection.execute(select(limit, limit_idleness()))
