"""Bring a database to the current schema, and tell whether it is."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from db.connect import make_engine
from db.errors import UnfitDatabaseError

MIGRATIONS = Path(__file__).parent / "migrations"


class Schema(StrEnum):
    """How a database's schema compares with this release's; the value says what to do about it."""

    CURRENT = ""
    OLDER = "the database does not have the schema of this release: run `invigilator migrate`"
    NEWER = (
        "this release does not know the schema of the database: was the database migrated by a newer release? "
        "Then upgrade Invigilator to that one, or restore a backup that was made before"
    )


def upgrade(database_url: str, revision: str = "head") -> None:
    """Run the migrations up to `revision`. Several processes may do this at once; one does the work.

    Raises:
        UnfitDatabaseError: its schema is a newer release's, or it cannot hold every text.
    """
    _run(database_url, lambda config: command.upgrade(config, revision))


def downgrade(database_url: str, revision: str) -> None:
    """Undo migrations down to `revision` (`base` removes everything)."""
    _run(database_url, lambda config: command.downgrade(config, revision))


def compare(connection: Connection) -> Schema:
    """How the database's schema compares with that of this release. One that has none is older."""
    scripts = ScriptDirectory.from_config(_config())
    stored = set(MigrationContext.configure(connection).get_current_heads())
    if not stored <= {script.revision for script in scripts.walk_revisions()}:
        return Schema.NEWER
    return Schema.CURRENT if stored == set(scripts.get_heads()) else Schema.OLDER


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _run(database_url: str, step: Callable[[Config], None]) -> None:
    engine = make_engine(database_url, application_name="invigilator migrate")
    try:
        with engine.begin() as connection:
            if compare(connection) is Schema.NEWER:
                raise UnfitDatabaseError(Schema.NEWER)
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
