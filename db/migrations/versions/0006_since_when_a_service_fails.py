"""Stores since when a service fails, so that a worker that does not call it can say so."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column(
        "circuits",
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )


def downgrade() -> None:
    op.drop_column("circuits", "since")
