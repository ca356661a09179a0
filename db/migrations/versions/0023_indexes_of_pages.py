"""Builds the indexes by which a page of attempts begins in the middle. `ix_attempts_status_id` replaces `ix_attempts_status`."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None
usable_from = "0006"

COLUMNS = {"ix_attempts_status_id": ["status", "id"], "ix_attempts_exam_id_id": ["exam_id", "id"]}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, columns in COLUMNS.items():
            # An earlier build that failed has left an invalid index behind.
            op.drop_index(name, "attempts", if_exists=True, postgresql_concurrently=True)
            op.create_index(name, "attempts", columns, postgresql_concurrently=True)
        op.drop_index("ix_attempts_status", "attempts", if_exists=True, postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_attempts_status", "attempts", if_exists=True, postgresql_concurrently=True)
        op.create_index("ix_attempts_status", "attempts", ["status"], postgresql_concurrently=True)
        for name in COLUMNS:
            op.drop_index(name, "attempts", if_exists=True, postgresql_concurrently=True)
