"""Stores the cause of a failed try."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("tries", sa.Column("cause", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("tries", "cause")
