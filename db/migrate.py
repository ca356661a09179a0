"""Bring a database to the schema of this release. The rules of migrations are in docs/migrations.md."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, func, select, text

from db.compatibility import Schema, compare, head, schema_revision
from db.connect import make_engine
from db.errors import UnfitDatabaseError
from db.scripts import alembic_config

MIGRATION_LOCK = 4_916_273_301
"""The key of an advisory lock. Release 0.1.0 has the same key, so that the two never migrate at once."""
POLL_S = 0.1


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run the migrations up to a revision. Several processes may do this at once; one does the work.

    Each migration is a transaction, so one that fails leaves those before it in place. A schema that a newer
    release has expanded stays as it is.

    Parameters:
        database_url: as for `db.connect.make_engine`.
        revision: where to stop.

    Raises:
        UnfitDatabaseError: this release cannot use the schema, because it is too new; or the database cannot hold
            every text.
        sqlalchemy.exc.DBAPIError: the database is away, or a table stayed locked.
    """
    with _engine(database_url) as engine:
        with _migrating(engine) as (current, config):
            if current <= head():
                command.upgrade(config, revision)
        _validate_constraints(engine)


def downgrade(database_url: str, revision: str) -> None:
    """Undo migrations down to a revision; `base` removes everything.

    Parameters:
        database_url: as for `db.connect.make_engine`.
        revision: where to stop.

    Raises:
        UnfitDatabaseError: a newer release has migrated the database; or the database cannot hold every text.
        sqlalchemy.exc.DBAPIError: the database is away, or a table stayed locked.
    """
    with _engine(database_url) as engine:
        with _migrating(engine) as (current, config):
            if current > head():
                raise UnfitDatabaseError(Schema.NEWER)
            command.downgrade(config, revision)
        _validate_constraints(engine)


@contextmanager
def _engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, application_name="invigilator migrate")
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _migrating(engine: Engine) -> Iterator[tuple[str, Config]]:
    """The revision of the schema, and what Alembic needs to change it, while nobody else migrates the database.

    Raises:
        UnfitDatabaseError: this release cannot use the schema, because it is too new.
    """
    with _locked(engine) as holder:
        if compare(holder) is Schema.NEWER:
            raise UnfitDatabaseError(Schema.NEWER)
        config = alembic_config()
        config.attributes["engine"] = engine
        current = schema_revision(holder)
        if current <= head():
            # Release 0.1.0 does not write the table that Alembic reads here.
            command.stamp(config, current or "base")
        yield current, config


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """A transaction that has the lock of migrations, which works behind PgBouncer, too."""
    # Each attempt is a transaction of its own. CREATE INDEX CONCURRENTLY waits for the transactions that it has met
    # with a snapshot, so the migrator that works would wait for one that waits for it.
    while True:
        with engine.begin() as holder:
            holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            if holder.execute(select(func.pg_try_advisory_xact_lock(MIGRATION_LOCK))).scalar_one():
                yield holder
                return
        time.sleep(POLL_S)


def _validate_constraints(engine: Engine) -> None:
    """Check the rows against constraints that migrations have added as NOT VALID, while others read and write."""
    with engine.begin() as connection:
        # Only in the schema that the migrations have written to.
        added = connection.execute(
            text(
                "SELECT conrelid::regclass::text AS relation, quote_ident(conname) AS name FROM pg_constraint "
                "WHERE NOT convalidated AND connamespace = current_schema()::regnamespace"
            )
        ).all()
    for one in added:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {one.relation} VALIDATE CONSTRAINT {one.name}"))
