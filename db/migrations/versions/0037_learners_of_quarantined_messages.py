"""Stores the learner of a message in quarantine, and when they were erased."""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("quarantine", sa.Column("user_id", sa.Text(), nullable=True))
    op.add_column("quarantine", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("quarantine", "erased_at")
    op.drop_column("quarantine", "user_id")
