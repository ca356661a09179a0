"""Adds the language and the time zone of a learner. Null: the LMS has not told them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("learners", sa.Column("language", sa.Text()))
    op.add_column("learners", sa.Column("time_zone", sa.Text()))


def downgrade() -> None:
    op.drop_column("learners", "time_zone")
    op.drop_column("learners", "language")
