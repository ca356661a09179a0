"""Migrations: they make what the models say, there and back, and never queue behind a lock for long."""

from collections.abc import Iterator
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from db import migrate
from db.models import Base

CATALOG = """
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
    UNION ALL SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 'column', table_name, column_name,
        concat_ws(' ', data_type, is_nullable, column_default, is_identity, identity_generation)
    FROM information_schema.columns WHERE table_schema = 'public'
"""


def catalog(connection: Connection) -> set[tuple[Any, ...]]:
    """Every table, column, index and constraint, as PostgreSQL describes them."""
    rows = connection.execute(text(CATALOG))
    return {tuple(row) for row in rows if row[1] != "alembic_version"}


@pytest.fixture
def empty_engine(empty_database_url: str) -> Iterator[Engine]:
    engine = create_engine(empty_database_url, poolclass=NullPool)
    yield engine
    engine.dispose()


def test_migrations_and_models_agree(connection: Connection, empty_engine: Engine) -> None:
    # Given a database made by the migrations, and one made from the models
    with empty_engine.begin() as other:
        Base.metadata.create_all(other)
    # Then neither Alembic nor PostgreSQL sees a difference, CHECKs and partial indexes included
    context = MigrationContext.configure(connection, opts={"compare_server_default": True})
    assert compare_metadata(context, Base.metadata) == []
    with empty_engine.begin() as other:
        assert catalog(connection) == catalog(other)


def test_there_and_back(empty_database_url: str, empty_engine: Engine, connection: Connection) -> None:
    migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "base")
    with empty_engine.begin() as emptied:
        assert catalog(emptied) == set()
        assert not migrate.is_current(emptied)
    migrate.upgrade(empty_database_url)
    migrate.upgrade(empty_database_url)
    with empty_engine.begin() as again:
        assert catalog(again) == catalog(connection)
        assert migrate.is_current(again)


def test_a_migration_gives_up_on_a_locked_table(database_url: str) -> None:
    # Given a table that somebody holds
    holder = create_engine(database_url, poolclass=NullPool)
    with holder.begin() as connection:
        connection.execute(text("LOCK TABLE effects"))
        # When a migration wants it, then it fails instead of making everybody queue behind it
        with pytest.raises(OperationalError, match="lock timeout"):
            migrate.downgrade(database_url, "base")
    with holder.begin() as connection:
        assert migrate.is_current(connection)
    holder.dispose()
