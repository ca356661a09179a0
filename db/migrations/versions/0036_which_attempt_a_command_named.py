"""Stores how a command named its attempt."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("outcomes", sa.Column("attempt_code", sa.Text(), nullable=True))
    op.add_column("outcomes", sa.Column("external_id", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("outcomes", "external_id")
    op.drop_column("outcomes", "attempt_code")
