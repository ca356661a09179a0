"""Creates the totals, to which each process adds in rows of its own."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.create_table(
        "totals",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("writer", sa.Uuid(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", "writer", name=op.f("pk_totals")),
        postgresql_with={"fillfactor": 50},
    )


def downgrade() -> None:
    op.drop_table("totals")
