"""How migrations work on tables that a site may have divided into partitions (`db.partitions`).

A partitioned table takes no storage parameters, and no index is built on it concurrently. These functions do the
same to a whole table and to each partition of a divided one.
"""

from alembic import op

from db.partitions import index_name

_EACH = """
DO $body$
DECLARE
    part regclass;
BEGIN
    FOR part IN
        SELECT oid::regclass FROM pg_class WHERE oid = '{table}'::regclass AND relkind = 'r'
        UNION ALL
        SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '{table}'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %s {action}', part);
    END LOOP;
END
$body$
"""

_PARTS = """
SELECT relname
FROM pg_inherits
JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = to_regclass(quote_ident('{table}'))
ORDER BY relname
"""

_ATTACHED = """
SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(quote_ident('{index}')))
"""


def alter_each(table: str, action: str) -> None:
    """Alter a table, or each partition of it, such as with `SET (autovacuum_vacuum_threshold = 1000)`.

    Parameters:
        action: what comes after `ALTER TABLE …`, without quotes and percent signs.
    """
    op.execute(_EACH.format(table=table, action=action))


def build_index(name: str, table: str, definition: str, *, unique: bool = False) -> None:
    """Build an index while others write; on a divided table, one on each partition.

    Outside of a transaction, so in an `autocommit_block`. A partitioned table has no unique index that lacks the
    partition key: there a unique one holds within each partition only. Partitions that are made later have it, too.

    Parameters:
        definition: what comes after the table's name, such as `(kind) WHERE state = 'pending'`.
    """
    kind = "UNIQUE INDEX" if unique else "INDEX"
    parts = _parts(table)
    for part in parts or [table]:
        one = _name(name, table, part)
        if parts and op.get_bind().exec_driver_sql(_ATTACHED.format(index=one)).scalar():
            continue
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {one}")
        op.execute(f"CREATE {kind} CONCURRENTLY {one} ON {part} {definition}")
    if parts and not unique:
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {table} {definition}")
        for part in parts:
            op.execute(f"ALTER INDEX {name} ATTACH PARTITION {_name(name, table, part)}")


def drop_index(name: str, table: str) -> None:
    """Drop an index while others write. That of a divided table needs a moment in which everybody waits."""
    parts = _parts(table)
    if not parts:
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        return
    op.execute(f"DROP INDEX IF EXISTS {name}")
    for part in parts:
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_name(name, table, part)}")


def _name(name: str, table: str, part: str) -> str:
    return name if part == table else index_name(name, part.removeprefix(f"{table}_"))


def _parts(table: str) -> list[str]:
    context = op.get_context()
    if context.as_sql:  # nobody is asked
        return []
    return list(op.get_bind().exec_driver_sql(_PARTS.format(table=table)).scalars())
