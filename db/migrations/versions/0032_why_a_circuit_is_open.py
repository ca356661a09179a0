"""Stores what a service that fails has said."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("circuits", sa.Column("reason", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("circuits", "reason")
