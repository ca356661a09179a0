"""Adds whether a course gives credit. Null: the LMS has not told it, and it counts as true."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("courses", sa.Column("gives_credit", sa.Boolean()))


def downgrade() -> None:
    op.drop_column("courses", "gives_credit")
