"""Which schemas this release can use, and what `db.migrate` makes of each."""

import pytest

from db import migrate
from db.compatibility import NEEDED, Schema, compare, head, schema_revision
from db.errors import UnfitDatabaseError
from tests import engines, standby

NEWER = "9999"


def found(url: str) -> tuple[str, Schema]:
    """The revision of the schema, and what this release makes of it."""
    with engines.disposed(url) as engine, engine.connect() as connection:
        return schema_revision(connection), compare(connection)


def usable_from(url: str) -> list[str]:
    """What releases before `invigilator_schema` read."""
    with engines.disposed(url) as engine, engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        return [row.version_num for row in rows]


def test_a_schema_is_usable_from_the_revision_that_the_code_needs(empty_database_url: str) -> None:
    assert found(empty_database_url) == ("", Schema.OLDER)
    before = f"{int(NEEDED) - 1:04}"
    migrate.upgrade(empty_database_url, before)
    assert found(empty_database_url) == (before, Schema.OLDER)
    migrate.upgrade(empty_database_url, NEEDED)
    assert found(empty_database_url) == (NEEDED, Schema.USABLE)
    migrate.upgrade(empty_database_url)
    assert found(empty_database_url) == (head(), Schema.USABLE)


def test_a_schema_that_a_newer_release_has_expanded_is_used_and_left_alone(database_url: str) -> None:
    standby.execute(database_url, f"UPDATE invigilator_schema SET version_num = '{NEWER}'")
    migrate.upgrade(database_url)
    assert found(database_url) == (NEWER, Schema.USABLE)
    with pytest.raises(UnfitDatabaseError, match="newer release"):
        migrate.downgrade(database_url, "base")
    assert found(database_url) == (NEWER, Schema.USABLE)


def test_a_schema_from_which_a_newer_release_has_taken_something_is_refused(database_url: str) -> None:
    for table in ("invigilator_schema", "alembic_version"):
        standby.execute(database_url, f"UPDATE {table} SET version_num = '{NEWER}'")
    assert found(database_url) == (NEWER, Schema.NEWER)
    for change in (migrate.upgrade, lambda url: migrate.downgrade(url, "base")):
        with pytest.raises(UnfitDatabaseError, match="newer release"):
            change(database_url)


def test_older_releases_find_their_own_revision(database_url: str) -> None:
    assert usable_from(database_url) == ["0006"]
    migrate.downgrade(database_url, "0004")
    assert usable_from(database_url) == ["0004"]
    migrate.downgrade(database_url, "base")
    assert usable_from(database_url) == []


@pytest.mark.parametrize(
    "left_behind",
    ["DROP TABLE invigilator_schema", "UPDATE invigilator_schema SET version_num = '0003'"],
    ids=["which it has made", "which was taken back before"],
)
def test_a_database_that_release_0_1_0_has_migrated(empty_database_url: str, left_behind: str) -> None:
    # Given a database at 0006 as that release leaves it: it does not write `invigilator_schema`
    migrate.upgrade(empty_database_url, "0006")
    standby.execute(empty_database_url, left_behind)
    # Then it is refused as too old, with the command that helps
    assert found(empty_database_url) == ("0006", Schema.OLDER)
    assert "run `invigilator migrate`" in Schema.OLDER
    # When this release migrates it, then it goes on from there
    migrate.upgrade(empty_database_url)
    assert found(empty_database_url) == (head(), Schema.USABLE)
