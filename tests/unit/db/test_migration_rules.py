"""Every migration keeps the rules of docs/migrations.md, and the check of the rules finds what breaks them."""

import pytest
from alembic.script import Script

from db import compatibility, scripts
from tests.unit.db.migration_rules import recorded, violations

SCRIPTS = sorted(scripts.scripts().walk_revisions(), key=lambda script: script.revision)
RULES_FROM = "0007"

# Release 0.1.0 has these, and databases have run them: they stay as they are. Until then everything was stopped for
# a migration.
EXCEPTIONS = {
    "0001": [],
    "0002": [
        "adds a column that older releases do not fill: quarantine",
        "adds a column with a value that rewrites the table: quarantine",
        "builds an index without CONCURRENTLY: quarantine",
        "adds a constraint without NOT VALID: quarantine",
        "alters several tables: effects, quarantine, shards",
    ],
    "0003": [
        "builds an index without CONCURRENTLY: attempts",
        "drops an index without CONCURRENTLY",
    ],
    "0004": [],  # drops a sequence, and refuses every release before itself
    "0005": ["adds a constraint without NOT VALID: quarantine"],
    "0006": [],
}


def name_of(script: Script) -> str:
    return script.revision


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_migration_keeps_the_rules(script: Script) -> None:
    before = [older.module.usable_from for older in SCRIPTS if older.revision < script.revision]
    contracts = [script.module.usable_from] != before[-1:]
    assert violations(recorded(script.module), contracts=contracts) == EXCEPTIONS.get(script.revision, [])


def test_exceptions_are_those_of_the_first_release() -> None:
    assert sorted(EXCEPTIONS) == [script.revision for script in SCRIPTS if script.revision < RULES_FROM]


def test_migrations_are_numbered() -> None:
    assert [script.revision for script in SCRIPTS] == [
        f"{number:04}" for number in range(1, len(SCRIPTS) + 1)
    ]
    assert [script.down_revision for script in SCRIPTS[1:]] == [script.revision for script in SCRIPTS[:-1]]
    assert SCRIPTS[-1].revision == compatibility.head()


def test_each_migration_names_the_oldest_release_that_can_use_its_schema() -> None:
    named = [script.module.usable_from for script in SCRIPTS]
    assert named == sorted(named)
    for script in SCRIPTS:
        assert script.module.usable_from in {one.revision for one in SCRIPTS}
        assert script.module.usable_from <= script.revision


def test_the_code_works_on_a_schema_that_exists() -> None:
    assert compatibility.NEEDED in {script.revision for script in SCRIPTS}


KEPT = [
    ["CREATE TABLE news (id BIGINT NOT NULL)", "CREATE INDEX ix_news_id ON news (id)"],
    ["CREATE TABLE news (id BIGINT NOT NULL)", "ALTER TABLE news ADD CONSTRAINT ck_news_id CHECK (id > 0)"],
    ["COMMIT", "CREATE INDEX CONCURRENTLY ix_effects_kind ON effects (kind)", "BEGIN"],
    ["COMMIT", "DROP INDEX CONCURRENTLY ix_effects_kind", "BEGIN"],
    ["ALTER TABLE effects ADD CONSTRAINT ck_effects_kind CHECK (kind <> '') NOT VALID"],
    ["ALTER TABLE effects ADD CONSTRAINT uq_effects_kind UNIQUE USING INDEX uq_effects_kind"],
    ["ALTER TABLE effects ADD COLUMN reason TEXT", "ALTER TABLE effects DROP CONSTRAINT ck_effects_kind"],
    ["ALTER TABLE effects ADD COLUMN tries INTEGER DEFAULT '0' NOT NULL"],
    ["ALTER TABLE circuits ADD COLUMN since TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL"],
]
BROKEN = [
    (["CREATE INDEX ix_effects_kind ON effects (kind)"], "without CONCURRENTLY"),
    (["CREATE UNIQUE INDEX uq_effects_kind ON effects (kind) WHERE true"], "without CONCURRENTLY"),
    (["CREATE INDEX IF NOT EXISTS ix_effects_kind ON ONLY effects (kind)"], "without CONCURRENTLY"),
    (["CREATE INDEX ON effects (kind)"], "without CONCURRENTLY"),
    (["DROP INDEX IF EXISTS ix_effects_kind"], "without CONCURRENTLY"),
    (
        [
            "ALTER TABLE effects ADD COLUMN reason TEXT",
            *("COMMIT", "CREATE INDEX CONCURRENTLY ix_effects_reason ON effects (reason)", "BEGIN"),
        ],
        "more than build an index",
    ),
    (["ALTER TABLE effects ADD CONSTRAINT ck_effects_kind CHECK (kind <> '')"], "without NOT VALID"),
    (
        ["ALTER TABLE effects ADD CONSTRAINT fk_effects_kind FOREIGN KEY(kind) REFERENCES kinds (kind)"],
        "without NOT VALID",
    ),
    (["ALTER TABLE effects ADD COLUMN kind TEXT REFERENCES kinds"], "without NOT VALID"),
    (["ALTER TABLE ONLY effects ADD COLUMN a TEXT, ADD CHECK (kind <> '')"], "without NOT VALID"),
    (["ALTER TABLE effects ADD CONSTRAINT uq_effects_kind UNIQUE (kind)"], "built before"),
    (["ALTER TABLE effects VALIDATE CONSTRAINT ck_effects_kind"], "validates"),
    (["ALTER TABLE effects ADD COLUMN reason TEXT NOT NULL"], "do not fill"),
    (["ALTER TABLE effects ADD COLUMN key UUID DEFAULT gen_random_uuid() NOT NULL"], "rewrites"),
    (["ALTER TABLE effects ADD COLUMN number BIGINT GENERATED ALWAYS AS IDENTITY"], "rewrites"),
    (["ALTER TABLE effects ADD COLUMN a TEXT", "ALTER TABLE tries ADD COLUMN a TEXT"], "several tables"),
    (["UPDATE effects SET kind = 'x'"], "changes rows"),
    (["INSERT INTO shards (shard) VALUES (0)"], "changes rows"),
    (["LOCK TABLE effects"], "for long"),
    (["SET lock_timeout = 0"], "time-out"),
]
CONTRACTS = [
    ["ALTER TABLE effects DROP COLUMN kind"],
    ["ALTER TABLE IF EXISTS effects ADD COLUMN reason TEXT, DROP kind"],
    ["ALTER TABLE effects RENAME kind TO type"],
    ["ALTER TABLE effects ALTER COLUMN kind TYPE INTEGER"],
    ["ALTER TABLE effects ALTER COLUMN kind SET NOT NULL"],
    ["ALTER TABLE effects ALTER COLUMN tries DROP DEFAULT"],
    ["DROP TABLE circuits"],
    ["DROP SEQUENCE try_sequence"],
]


@pytest.mark.parametrize("statements", KEPT)
def test_what_keeps_the_rules(statements: list[str]) -> None:
    assert violations(statements, contracts=False) == []


@pytest.mark.parametrize(("statements", "what"), BROKEN)
def test_what_breaks_a_rule(statements: list[str], what: str) -> None:
    [found] = violations(statements, contracts=True)
    assert what in found


@pytest.mark.parametrize("statements", CONTRACTS)
def test_what_only_a_contract_may_do(statements: list[str]) -> None:
    assert len(violations(statements, contracts=False)) == 1
    assert violations(statements, contracts=True) == []
