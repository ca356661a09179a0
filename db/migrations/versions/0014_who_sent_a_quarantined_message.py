"""Stores the source and the id of a quarantined message, if they can be read."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("quarantine", sa.Column("source", sa.Text(), nullable=True))
    op.add_column("quarantine", sa.Column("command_id", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("quarantine", "command_id")
    op.drop_column("quarantine", "source")
