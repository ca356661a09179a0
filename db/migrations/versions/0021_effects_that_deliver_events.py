"""Lets an effect deliver an event, which may be about no attempt. Stores an effect's trace, and who heard of its failure."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("effects", sa.Column("event_id", sa.Uuid(), nullable=True))
    op.add_column("effects", sa.Column("subscriber", sa.Text(), nullable=True))
    op.add_column("effects", sa.Column("traceparent", sa.Text(), nullable=True))
    op.add_column("effects", sa.Column("failure_told", sa.Boolean(), nullable=True))
    op.alter_column("effects", "attempt_id", nullable=True)
    op.alter_column("effects", "user_id", nullable=True)


def downgrade() -> None:
    # The two columns stay nullable: rows that have none would be lost otherwise.
    op.drop_column("effects", "failure_told")
    op.drop_column("effects", "traceparent")
    op.drop_column("effects", "subscriber")
    op.drop_column("effects", "event_id")
