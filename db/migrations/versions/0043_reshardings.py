"""Stores changes of the number of shards, and which shards have passed the barrier of one."""

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.create_table(
        "reshardings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("from_shards", sa.Integer(), nullable=False),
        sa.Column("to_shards", sa.Integer(), nullable=False),
        sa.Column("barrier", sa.Text(), nullable=False),
        sa.Column("notice_s", sa.Double(), nullable=False),
        sa.Column("settle_s", sa.Double(), nullable=False),
        sa.Column(
            "begun_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("from_shards >= 1 AND to_shards >= 1", name=op.f("ck_reshardings_shards")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reshardings")),
    )
    op.create_index(
        "ix_reshardings_unfinished",
        "reshardings",
        [sa.text("(finished_at IS NULL)")],
        unique=True,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.add_column("shards", sa.Column("barrier_passed", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("shards", "barrier_passed")
    op.drop_table("reshardings")
