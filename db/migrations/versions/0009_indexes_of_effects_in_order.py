"""Finds the effects that share a key, and lets one of them run at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    downgrade()  # a build that failed has left an invalid index
    with op.get_context().autocommit_block():
        op.create_index(
            "ix_effects_order_key",
            "effects",
            ["order_key", "sequence"],
            postgresql_where=sa.text("order_key IS NOT NULL"),
            postgresql_concurrently=True,
        )
        op.create_index(
            "uq_effects_running_order_key",
            "effects",
            ["order_key"],
            unique=True,
            postgresql_where=sa.text("state = 'running' AND order_key IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in ("uq_effects_running_order_key", "ix_effects_order_key"):
            op.drop_index(name, table_name="effects", postgresql_concurrently=True, if_exists=True)
