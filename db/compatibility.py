"""Whether this release can use a database's schema.

During an upgrade the processes of two releases work on one schema. So a release also uses schemas that are not its
own. A database names two revisions, each in a table of its own:

- `invigilator_schema` has the revision of the schema. Alembic keeps it.
- `alembic_version` has the oldest revision whose release can still use the schema. Release 0.1.0 reads only this
  table, and works where it finds its own revision.

Revisions are numbered with four digits, so they compare as text. "" stands for a database without our tables.

docs/migrations.md has the rules of migrations, and docs/decisions/0022-old-and-new-releases-on-one-schema.md the
reasons.
"""

from enum import StrEnum
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, text

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA_VERSION = "invigilator_schema"
USABLE_FROM = "alembic_version"

NEEDED = "0043"
"""The oldest revision that the code of this release works on. The previous release has it."""


class Schema(StrEnum):
    """What this release makes of a database's schema; the value says what is wrong and what to do about it."""

    USABLE = ""
    OLDER = (
        "the database does not have the schema of this release: run `invigilator migrate` "
        "(it has no schema, or one that is older than this release can use)"
    )
    NEWER = (
        "this release does not know the schema of the database: was the database migrated by a newer release? "
        "Then upgrade Invigilator to that one, or restore a backup that was made before"
    )


def compare(connection: Connection) -> Schema:
    """Say whether this release can use the database's schema, and if not, in which direction it differs."""
    if _stored(connection, USABLE_FROM) > head():
        return Schema.NEWER
    return Schema.USABLE if schema_revision(connection) >= NEEDED else Schema.OLDER


def schema_revision(connection: Connection) -> str:
    """The revision of the database's schema; "" when it has none."""
    # Release 0.1.0 writes only `alembic_version` when it migrates, and leaves an older `invigilator_schema` behind.
    return max(_stored(connection, SCHEMA_VERSION), _stored(connection, USABLE_FROM))


@cache
def head() -> str:
    """The newest revision that this release knows.

    It is read off the names of the files. Every process asks for it when it starts, and Alembic would have to be
    imported, and each migration with it.
    """
    return max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _stored(connection: Connection, table: str) -> str:
    exists = connection.execute(text("SELECT to_regclass(:table) IS NOT NULL"), {"table": table}).scalar_one()
    if not exists:
        return ""
    statement = f"SELECT max(version_num) FROM {table}"  # noqa: S608 - one of our two constants
    return connection.execute(text(statement)).scalar_one() or ""
