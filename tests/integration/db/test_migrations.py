"""Migrations: they make what the models say, there and back, and never queue behind a lock for long."""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, TextClause, create_engine, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from db import compatibility, migrate
from db.compatibility import MIGRATIONS, SCHEMA_VERSION, USABLE_FROM, Schema, compare, schema_revision
from db.models import Base

POLL_S = 0.02
PATIENCE_S = 60.0
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
    return {tuple(row) for row in rows if row[1] not in (SCHEMA_VERSION, USABLE_FROM)}


def is_ours(name: str | None, kind: str, _: object) -> bool:
    """Whether Alembic should look at something: at all but a table that only migrations write."""
    return (kind, name) != ("table", USABLE_FROM)


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
    options = {"compare_server_default": True, "version_table": SCHEMA_VERSION, "include_name": is_ours}
    context = MigrationContext.configure(connection, opts=options)
    assert compare_metadata(context, Base.metadata) == []
    with empty_engine.begin() as other:
        assert catalog(connection) == catalog(other)


def test_there_and_back(database_url: str, engine: Engine, connection: Connection) -> None:
    migrate.downgrade(database_url, "base")
    with engine.begin() as emptied:
        assert catalog(emptied) == set()
        assert compare(emptied) is Schema.OLDER
    migrate.upgrade(database_url)
    migrate.upgrade(database_url)
    with engine.begin() as again:
        assert catalog(again) == catalog(connection)
        assert compare(again) is Schema.USABLE


def test_several_may_migrate_at_once(empty_database_url: str, empty_engine: Engine) -> None:
    with ThreadPoolExecutor() as threads:
        list(threads.map(migrate.upgrade, [empty_database_url] * 3))
    with empty_engine.begin() as connection:
        assert compare(connection) is Schema.USABLE


def test_whoever_waits_to_migrate_has_no_transaction(empty_database_url: str, empty_engine: Engine) -> None:
    # CREATE INDEX CONCURRENTLY of the one that migrates might wait for its end
    rests = text(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'invigilator migrate'"
        " AND datname = current_database() AND state = 'idle' AND query = 'COMMIT'"
    )
    give_up = time.monotonic() + PATIENCE_S
    with ThreadPoolExecutor() as threads, empty_engine.begin() as holder:
        holder.execute(select(func.pg_advisory_xact_lock(migrate.MIGRATION_LOCK)))
        waiting = threads.submit(migrate.upgrade, empty_database_url)
        while not _one(empty_engine, rests):
            assert time.monotonic() < give_up
            time.sleep(POLL_S)
        assert not waiting.done()
    assert waiting.result() is None


def _one(engine: Engine, query: TextClause) -> int:
    with engine.begin() as connection:
        return int(connection.execute(query).scalar_one())


def test_an_index_is_built_while_others_write_and_migrate(
    empty_database_url: str, empty_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a migration that builds an index concurrently, and somebody who has written and not committed yet
    _use_migrations(monkeypatch, tmp_path)
    _write_migration(tmp_path, "0001", 'op.execute("CREATE TABLE news (id bigint)")')
    migrate.upgrade(empty_database_url)
    _write_migration(
        tmp_path,
        "0002",
        "with op.get_context().autocommit_block():",
        '    op.create_index("ix_news_id", "news", ["id"], postgresql_concurrently=True)',
    )
    insert = text("INSERT INTO news VALUES (1)")
    with empty_engine.connect() as writer, ThreadPoolExecutor() as threads:
        writer.execute(insert)
        # When two processes migrate
        migrating = [threads.submit(migrate.upgrade, empty_database_url) for _ in range(2)]
        while not _waits_for_writer(empty_engine):
            assert not any(one.done() for one in migrating)
            time.sleep(POLL_S)
        # Then others write meanwhile, and the index is built as soon as the first one has committed
        with empty_engine.begin() as other:
            other.execute(insert)
        writer.commit()
        for one in migrating:
            one.result()
    with empty_engine.begin() as connection:
        query = text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_news_id'::regclass")
        assert connection.execute(query).scalar_one()
        assert schema_revision(connection) == "0002"


def test_every_transaction_of_a_migration_gives_up_on_locks_and_nothing_else_does(
    empty_database_url: str, empty_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "INSERT INTO limits SELECT current_setting('lock_timeout')"
    _use_migrations(monkeypatch, tmp_path)
    _write_migration(
        tmp_path,
        "0001",
        'op.execute("CREATE TABLE limits (lock_timeout text)")',
        f'op.execute("{note}")',
        "with op.get_context().autocommit_block():",
        f'    op.execute("{note}")',
        f'op.execute("{note}")',
    )
    migrate.upgrade(empty_database_url)
    with empty_engine.begin() as connection:
        limits = connection.execute(text("SELECT lock_timeout FROM limits")).scalars().all()
    assert limits == ["5s", "0", "5s"]


def _use_migrations(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the migrations be those of a folder, which are yet to be written."""
    monkeypatch.setattr(compatibility, "MIGRATIONS", folder)
    (folder / "versions").mkdir()
    shutil.copy(MIGRATIONS / "env.py", folder)


def _write_migration(folder: Path, revision: str, *upgrade: str) -> None:
    before = max((file.stem for file in (folder / "versions").glob("*.py")), default=None)
    lines = [
        "from alembic import op",
        f"revision = {revision!r}",
        f"down_revision = {before!r}",
        "usable_from = '0001'",
        "def upgrade():",
        *(f"    {line}" for line in upgrade),
    ]
    (folder / "versions" / f"{revision}.py").write_text("\n".join(lines), encoding="utf-8")


def _waits_for_writer(engine: Engine) -> bool:
    waits = text(
        "SELECT FROM pg_stat_activity "
        "WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event = 'virtualxid'"
    )
    with engine.begin() as connection:
        return connection.execute(waits).first() is not None


def test_a_migration_gives_up_on_a_locked_table(database_url: str) -> None:
    # Given a table that somebody holds, and a migration that alters it. One that only builds or drops an index
    # concurrently would wait, which makes nobody queue.
    migrate.downgrade(database_url, "0016")
    holder = create_engine(database_url, poolclass=NullPool)
    with holder.begin() as connection:
        connection.execute(text("LOCK TABLE effects"))
        # When a migration wants it, then it fails instead of making everybody queue behind it
        with pytest.raises(OperationalError, match="lock timeout"):
            migrate.downgrade(database_url, "base")
    with holder.begin() as connection:
        assert schema_revision(connection) == "0016"
    holder.dispose()


def test_a_constraint_that_is_added_unchecked_is_checked_while_others_write(database_url: str) -> None:
    # Given a constraint that a migration has added without looking at the rows, and somebody who writes
    writer = create_engine(database_url, poolclass=NullPool)
    with writer.begin() as connection:
        connection.execute(text("ALTER TABLE tries DROP CONSTRAINT ck_tries_result"))
        connection.execute(
            text("ALTER TABLE tries ADD CONSTRAINT ck_tries_result CHECK (result <> 'x') NOT VALID")
        )
    with writer.begin() as connection:
        connection.execute(text("LOCK TABLE tries IN ROW EXCLUSIVE MODE"))
        # When the database is migrated, then the constraint is validated
        migrate.upgrade(database_url)
        query = text("SELECT convalidated FROM pg_constraint WHERE conname = 'ck_tries_result'")
        assert connection.execute(query).scalar_one()
    writer.dispose()


def test_going_back_from_0004_keeps_numbers_growing_and_every_try(
    database_url: str, empty_engine: Engine
) -> None:
    # Given a try that was only logged, with a number that is ahead of the clock
    engine = create_engine(database_url, poolclass=NullPool)
    ahead = 2**52
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # there is no effect
        connection.execute(
            text(
                "INSERT INTO tries (effect_id, number, started_at, finished_at, result, sequence) "
                "VALUES (gen_random_uuid(), 1, now(), now(), 'logged', :ahead)"
            ),
            {"ahead": ahead},
        )
    # When the schema of the older release comes back
    migrate.downgrade(database_url, "0003")
    # Then its numbers are above all before, and the try is one that it knows
    with engine.begin() as connection:
        assert connection.execute(text("SELECT nextval('try_sequence')")).scalar_one() == ahead + 1
        assert connection.execute(text("SELECT result FROM tries")).scalars().all() == ["done"]
    engine.dispose()
    # also where nothing was ever tried
    url = empty_engine.url.render_as_string(hide_password=False)
    migrate.upgrade(url, "0004")
    clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    with empty_engine.begin() as connection:
        before = connection.execute(text(clock)).scalar_one()
    migrate.downgrade(url, "0003")
    with empty_engine.begin() as connection:
        assert connection.execute(text("SELECT nextval('try_sequence')")).scalar_one() > before
