"""Lets autovacuum clean the tables that churn after a number of dead rows, however many rows they keep."""

from db.parts import alter_each

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None
usable_from = "0006"

DEAD_ROWS = 20_000
TABLES = ("effects", "tries", "events")


def upgrade() -> None:
    for table in TABLES:
        alter_each(
            table,
            "SET (autovacuum_vacuum_scale_factor = 0, "
            f"autovacuum_vacuum_threshold = {DEAD_ROWS}, autovacuum_vacuum_cost_limit = 2000)",
        )


def downgrade() -> None:
    for table in reversed(TABLES):
        alter_each(
            table,
            "RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_limit)",
        )
