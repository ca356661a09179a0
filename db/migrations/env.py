"""Alembic's hook: runs the migrations in the database that `db.migrate` names, one transaction for each."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.migration import MigrationContext
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import Connection, Engine, event

from db.compatibility import SCHEMA_VERSION, USABLE_FROM
from db.models import Base
from db.scripts import scripts

LIMITS = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '10min'"


def _run(engine: Engine) -> None:
    with engine.connect() as connection:
        event.listen(connection, "begin", _limit)
        context.configure(
            connection=connection,
            version_table=SCHEMA_VERSION,
            target_metadata=Base.metadata,
            compare_server_default=True,
            transaction_per_migration=True,
            on_version_apply=_write_usable_from,
        )
        with context.begin_transaction():
            context.run_migrations()


def _limit(connection: Connection) -> None:
    """Limit each transaction, so that no migration can forget it.

    While a migration waits for a table's lock, everybody else queues behind it. A statement outside a transaction,
    such as CREATE INDEX CONCURRENTLY, blocks nobody, and SET LOCAL does not limit it.
    """
    connection.exec_driver_sql(LIMITS)


def _write_usable_from(
    ctx: MigrationContext,
    step: MigrationInfo,  # noqa: ARG001 - Alembic passes all four by name
    heads: Collection[str],
    run_args: Mapping[str, Any],  # noqa: ARG001
) -> None:
    """Store what the migration says of older releases, in the transaction of the migration."""
    known = scripts()
    usable_from = [known.get_revision(revision).module.usable_from for revision in heads] or ["base"]
    MigrationContext.configure(ctx.connection, opts={"version_table": USABLE_FROM}).stamp(known, *usable_from)


_run(context.config.attributes["engine"])
