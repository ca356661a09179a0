"""Live attempts by learner first: what a batch reads is one part of this index whatever the plan knows of the table.

With the exam first, a plan that was made while the table was small went through all of it, and was kept.
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
