"""Builds the indexes by which the deliveries of an event and of a subscriber are found. No row of an older release is in them."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None
usable_from = "0006"

COLUMNS = {"ix_effects_event_id": ["event_id"], "ix_effects_subscriber_state": ["subscriber", "state"]}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, columns in COLUMNS.items():
            # An earlier build that failed has left an invalid index behind.
            op.drop_index(name, "effects", if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                "effects",
                columns,
                postgresql_where=sa.text(f"{columns[0]} IS NOT NULL"),
                postgresql_concurrently=True,
            )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name in COLUMNS:
            op.drop_index(name, "effects", if_exists=True, postgresql_concurrently=True)
