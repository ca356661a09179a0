"""Puts the learner first in the index of live attempts.

A batch then reads one part of the index, whatever the plan. With the exam first, a plan that was made while the table
was small read all of the index, and was kept when the table had grown.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
usable_from = "0003"

LIVE = sa.text("removed_at IS NULL")


def upgrade() -> None:
    _index("user_id", "exam_id")


def downgrade() -> None:
    _index("exam_id", "user_id")


def _index(*columns: str) -> None:
    op.drop_index("uq_attempts_live", table_name="attempts", postgresql_where=LIVE)
    op.create_index("uq_attempts_live", "attempts", columns, unique=True, postgresql_where=LIVE)
