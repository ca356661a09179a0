"""The rules of docs/migrations.md that can be read off a migration's SQL."""

import io
import re
from collections.abc import Iterator
from types import ModuleType

from alembic.migration import MigrationContext
from alembic.operations import Operations


def _alter(action: str) -> str:
    """A pattern of ALTER TABLE with this action, be it the first of several or not."""
    return rf"ALTER TABLE (\S+) (?:.*, )?{action}"


# These patterns capture the table.
_ON_A_TABLE = {
    r"CREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)(?:\S+ )?ON (\S+)": "builds an index without CONCURRENTLY",
    _alter(
        r"ADD (?:CONSTRAINT \S+ )?(?:CHECK|FOREIGN KEY)(?!.*NOT VALID)"
    ): "adds a constraint without NOT VALID",
    _alter(r"ADD COLUMN [^,]*(?:REFERENCES|CHECK)"): "adds a constraint without NOT VALID",
    _alter(r"ADD (?:CONSTRAINT \S+ )?(?:UNIQUE|PRIMARY KEY|EXCLUDE)(?! USING INDEX)"): (
        "adds a key without an index that is built before"
    ),
    _alter(r"ADD COLUMN (?!.*DEFAULT).*NOT NULL"): "adds a column that older releases do not fill",
    _alter(r"ADD COLUMN .*(?:GENERATED|SERIAL|DEFAULT (?!now\(\))[^ ]*\()"): (
        "adds a column with a value that rewrites the table"
    ),
    _alter(r"VALIDATE CONSTRAINT"): "validates a constraint, which `db.migrate` does afterwards",
    r"(?:UPDATE|DELETE FROM|INSERT INTO|TRUNCATE(?: TABLE)?) (\S+)": "changes rows",
    r"(?:LOCK(?: TABLE)?|CLUSTER|VACUUM(?: FULL)?|REINDEX TABLE) (\S+)": "locks a table for long",
}
_CONTRACTS_A_TABLE = {
    _alter(r"DROP (?!CONSTRAINT)"): "drops a column",
    _alter(r"RENAME"): "renames",
    _alter(r"ALTER (?:COLUMN )?\S+ (?:SET DATA )?TYPE"): "changes a type",
    _alter(r"ALTER (?:COLUMN )?\S+ SET NOT NULL"): "forbids NULL",
    _alter(r"ALTER (?:COLUMN )?\S+ DROP DEFAULT"): "drops a default",
    r"DROP TABLE (\S+)": "drops a table",
}
# These patterns capture no table.
_ANYWHERE = {
    r"DROP INDEX (?!CONCURRENTLY)": "drops an index without CONCURRENTLY",
    r"SET (?:LOCAL |SESSION )?(?:lock_timeout|statement_timeout)": "sets a time-out, which env.py does",
}
_CONTRACTS = {r"DROP SEQUENCE": "drops a sequence"}
_NOISE = re.compile(r"\b(?:IF NOT EXISTS|IF EXISTS|ONLY) ", re.IGNORECASE)


def recorded(migration: ModuleType) -> list[str]:
    """The statements of a migration's upgrade, each on one line. No database is needed."""
    sql = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": sql}
    )
    with Operations.context(context):
        migration.upgrade()
    return [" ".join(statement.split()) for statement in sql.getvalue().split(";\n") if statement.strip()]


def violations(statements: list[str], *, contracts: bool) -> list[str]:
    """What the statements of one migration do against the rules.

    Parameters:
        statements: as PostgreSQL gets them, each on one line.
        contracts: whether the migration takes something away from older releases, and says so.
    """
    statements = [_NOISE.sub("", statement) for statement in statements]
    created = set(re.findall(r"CREATE TABLE (\S+)", "\n".join(statements)))
    forbidden_on = _ON_A_TABLE | ({} if contracts else _CONTRACTS_A_TABLE)
    forbidden = _ANYWHERE | ({} if contracts else _CONTRACTS)
    found = [f"{what}: {table}" for what, table in _matches(forbidden_on, statements) if table not in created]
    found += [what for what, _ in _matches(forbidden, statements)]
    altered = {table for statement in statements for table in re.findall(r"ALTER TABLE (\S+)", statement)}
    if len(altered - created) > 1:
        found.append(f"alters several tables: {', '.join(sorted(altered - created))}")
    alone = [statement for statement in statements if statement not in ("BEGIN", "COMMIT")]
    concurrent = [statement for statement in alone if "INDEX CONCURRENTLY" in statement]
    if concurrent and concurrent != alone:
        found.append("does more than build an index concurrently")
    return found


def _matches(patterns: dict[str, str], statements: list[str]) -> Iterator[tuple[str, str]]:
    for statement in statements:
        for pattern, what in patterns.items():
            if match := re.match(pattern, statement, re.IGNORECASE):
                yield what, match[1] if match.groups() else ""
