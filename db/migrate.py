"""Bring a database to the current schema, and tell whether it is."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run the migrations up to `revision`. Several processes may do this at once; one does the work."""
    _run(database_url, lambda config: command.upgrade(config, revision))


def downgrade(database_url: str, revision: str) -> None:
    """Undo migrations down to `revision` (`base` removes everything)."""
    _run(database_url, lambda config: command.downgrade(config, revision))


def is_current(connection: Connection) -> bool:
    """Whether the database has exactly the schema of this release."""
    heads = ScriptDirectory.from_config(_config()).get_heads()
    return set(MigrationContext.configure(connection).get_current_heads()) == set(heads)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run(database_url: str, step: Callable[[Config], None]) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            config = _config()
            config.attributes["connection"] = connection
            step(config)
        _validate_constraints(engine)
    finally:
        engine.dispose()


def _validate_constraints(engine: Engine) -> None:
    """Check the rows against constraints that migrations have added as NOT VALID, while everybody works on them."""
    with engine.begin() as connection:
        # In the schema that the migrations have written to.
        added = connection.execute(
            text(
                "SELECT conrelid::regclass::text AS relation, quote_ident(conname) AS name FROM pg_constraint "
                "WHERE NOT convalidated AND connamespace = current_schema()::regnamespace"
            )
        ).all()
    for one in added:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {one.relation} VALIDATE CONSTRAINT {one.name}"))
