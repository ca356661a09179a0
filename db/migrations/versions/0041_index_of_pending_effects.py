"""Builds the index by which pending effects are counted by kind, with the age of the oldest."""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None
usable_from = "0006"

NAME = "ix_effects_pending"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # An earlier build that failed has left an invalid index behind.
        op.drop_index(NAME, "effects", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            NAME,
            "effects",
            ["kind", "created_at"],
            postgresql_where=sa.text("state = 'pending'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(NAME, "effects", if_exists=True, postgresql_concurrently=True)
