"""Stores whom and what a command was about, beside its outcome."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("outcomes", sa.Column("user_id", sa.Text(), nullable=True))
    op.add_column("outcomes", sa.Column("exam_id", sa.Text(), nullable=True))
    op.add_column("outcomes", sa.Column("to_status", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("outcomes", "to_status")
    op.drop_column("outcomes", "exam_id")
    op.drop_column("outcomes", "user_id")
