"""Creates the one row that says how far the event log is numbered, and up to where it was pruned."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.create_table(
        "event_log",
        sa.Column("singleton", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("position", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pruned_to", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("server_run", sa.Text(), nullable=True),
        sa.CheckConstraint("singleton", name=op.f("ck_event_log_singleton")),
        sa.CheckConstraint("pruned_to <= position", name=op.f("ck_event_log_pruned_to")),
        sa.PrimaryKeyConstraint("singleton", name=op.f("pk_event_log")),
    )
    op.execute("INSERT INTO event_log DEFAULT VALUES")


def downgrade() -> None:
    op.drop_table("event_log")
