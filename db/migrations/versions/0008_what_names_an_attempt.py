"""Stores by which names an attempt is known, and which credit requirements it has set."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("attempt_code", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("external_ids", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column("attempts", sa.Column("credit_told", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "credit_told")
    op.drop_column("attempts", "external_ids")
    op.drop_column("attempts", "attempt_code")
