"""Adds circuits, a bounded quarantine, and the codes of signed commands that are refused."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
usable_from = "0002"

CODES = "'not_json', 'not_cloudevent', 'unknown_type', 'invalid_data', 'too_large', 'id_reused', 'failed'"


def upgrade() -> None:
    op.create_table(
        "circuits",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_circuits_failures")),
        sa.PrimaryKeyConstraint("queue", name=op.f("pk_circuits")),
    )
    op.add_column("effects", sa.Column("tries_forgiven", sa.Integer(), server_default="0", nullable=False))
    op.add_column("effects", sa.Column("dropped_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "shards", sa.Column("quarantine_discarded", sa.BigInteger(), server_default="0", nullable=False)
    )
    size = sa.Computed("octet_length(body)", persisted=True)
    op.add_column("quarantine", sa.Column("size", sa.Integer(), size, nullable=False))
    op.create_index("ix_quarantine_size", "quarantine", ["id"], postgresql_include=["size"])
    _allow_codes(f"{CODES}, 'bad_signature', 'not_allowed'")


def downgrade() -> None:
    op.execute("DELETE FROM quarantine WHERE code IN ('bad_signature', 'not_allowed')")
    _allow_codes(CODES)
    op.drop_index("ix_quarantine_size", table_name="quarantine", postgresql_include=["size"])
    op.drop_column("quarantine", "size")
    op.drop_column("shards", "quarantine_discarded")
    op.drop_column("effects", "dropped_at")
    op.drop_column("effects", "tries_forgiven")
    op.drop_table("circuits")


def _allow_codes(codes: str) -> None:
    op.drop_constraint(op.f("ck_quarantine_code"), "quarantine", type_="check")
    op.create_check_constraint(op.f("ck_quarantine_code"), "quarantine", f"code IN ({codes})")
