"""Gives each try its number, which follows the clock, and tries that were only logged a result of their own.

The old sequence is dropped, so that a worker of the older release fails: it would draw numbers that are far behind.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
usable_from = "0004"

RESULTS = "'done', 'retry', 'failed', 'lost', 'folded'"
GO_ON = """
SELECT setval('try_sequence', greatest((extract(epoch FROM clock_timestamp()) * 1000000)::bigint, max(sequence)))
FROM tries
"""


def upgrade() -> None:
    op.add_column("tries", sa.Column("sequence", sa.BigInteger(), nullable=True))
    op.execute(sa.schema.DropSequence(sa.Sequence("try_sequence")))
    _allow_results("'done', 'logged', 'retry', 'failed', 'lost', 'folded'")


def downgrade() -> None:
    op.execute("UPDATE tries SET result = 'done' WHERE result = 'logged'")
    _allow_results(RESULTS)
    op.execute(sa.schema.CreateSequence(sa.Sequence("try_sequence")))
    op.execute(GO_ON)
    op.drop_column("tries", "sequence")


def _allow_results(results: str) -> None:
    # `db.migrate` validates it after the migration, which locks the table.
    op.drop_constraint(op.f("ck_tries_result"), "tries", type_="check")
    op.create_check_constraint(
        op.f("ck_tries_result"), "tries", f"result IN ({results})", postgresql_not_valid=True
    )
