"""Stores the key by which effects run one after the other."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.add_column("effects", sa.Column("order_key", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("effects", "order_key")
