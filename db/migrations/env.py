"""Alembic's hook. Migrations run on the connection that `db.migrate` hands over, in its transaction."""

from alembic import context
from sqlalchemy import Connection, text

from db.models import Base

MIGRATION_LOCK = 4_916_273_301  # any number that is ours: one process migrates at a time


def _run(connection: Connection) -> None:
    # Waits for another migrator, but never longer for a table than others can bear to queue behind it.
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    connection.execute(text("SET LOCAL lock_timeout = '5s'"))
    connection.execute(text("SET LOCAL statement_timeout = '10min'"))
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
