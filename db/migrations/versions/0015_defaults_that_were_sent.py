"""Stores which defaults a command has spelt out, beside its fingerprint."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("inbox", sa.Column("sent_defaults", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("inbox", "sent_defaults")
