"""Stores when a course was last described, and whether it gives credit."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("courses", sa.Column("described_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "courses", sa.Column("gives_credit", sa.Boolean(), server_default=sa.true(), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("courses", "gives_credit")
    op.drop_column("courses", "described_at")
