"""What the role of the application may do, and what it need not."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from db.models import Base

AUDIT = "acts"
WRITTEN_BY_ALEMBIC = ("alembic_version", "invigilator_schema")
ERASABLE = ("reason", "salt")
"""What may be taken away from the audit when a learner is erased."""
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")

_MISSING = """
SELECT wanted.table_name, wanted.privilege
FROM unnest(%(tables)s::text[], %(privileges)s::text[]) AS wanted (table_name, privilege)
WHERE to_regclass(quote_ident(wanted.table_name)) IS NOT NULL
    AND NOT has_table_privilege(to_regclass(quote_ident(wanted.table_name)), wanted.privilege)
ORDER BY wanted.table_name, wanted.privilege
"""

_REACH = """
SELECT
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
    pg_has_role(relowner, 'MEMBER') AS is_owner,
    ARRAY(
        SELECT privilege
        FROM unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) AS privilege
        WHERE has_table_privilege(pg_class.oid, privilege)
        UNION ALL
        SELECT 'UPDATE'
        WHERE EXISTS (
            SELECT
            FROM pg_attribute
            WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
                AND NOT attname = ANY (%(erasable)s::name[])
                AND has_column_privilege(pg_class.oid, attnum, 'UPDATE')
        )
    ) AS privileges
FROM pg_class
WHERE pg_class.oid = to_regclass(quote_ident(%(table)s))
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """Which ways the role has to change the audit.

    Parameters:
        is_superuser: whether it is one. Nothing is out of its reach.
        is_owner: whether it owns the table, or belongs to the role that does.
        privileges: those that it has and does not need.
    """

    is_superuser: bool
    is_owner: bool
    privileges: Sequence[str]

    @property
    def is_none(self) -> bool:
        """Whether the audit is out of its reach."""
        return not (self.is_superuser or self.is_owner or self.privileges)


def missing(connection: Connection) -> list[tuple[str, str]]:
    """Return the rights that the role lacks: tables and privileges. Tables that are not there lack none."""
    wanted = [(table, privilege) for table in Base.metadata.tables for privilege in _needed(table)]
    wanted += [(table, "SELECT") for table in WRITTEN_BY_ALEMBIC]
    tables, privileges = zip(*wanted, strict=True)
    rows = connection.exec_driver_sql(_MISSING, {"tables": list(tables), "privileges": list(privileges)})
    return [(row.table_name, row.privilege) for row in rows]


def _needed(table: str) -> Collection[str]:
    return ("SELECT", "INSERT") if table == AUDIT else _ALL


def reach(connection: Connection) -> Reach | None:
    """Return how the role can change the audit. None when there is no such table."""
    row = connection.exec_driver_sql(_REACH, {"table": AUDIT, "erasable": list(ERASABLE)}).first()
    return None if row is None else Reach(row.is_superuser, row.is_owner, row.privileges)
