"""Stores the cause and the time of the last failure of an effect."""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("effects", sa.Column("cause", sa.Text(), nullable=True))
    op.add_column("effects", sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("effects", "failed_at")
    op.drop_column("effects", "cause")
