"""Stores when a learner was last described, and their language and time zone."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("learners", sa.Column("described_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("learners", sa.Column("language", sa.Text(), nullable=True))
    op.add_column("learners", sa.Column("time_zone", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("learners", "time_zone")
    op.drop_column("learners", "language")
    op.drop_column("learners", "described_at")
