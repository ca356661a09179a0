"""Builds the indexes by which operators find failures, learners and attempts."""

from typing import NamedTuple

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None
usable_from = "0006"


class Index(NamedTuple):
    """An index that is built while others write."""

    name: str
    table: str
    columns: list[str]
    where: str


# Only the one on external ids holds rows of an older release.
INDEXES = (
    Index("ix_effects_cause_state", "effects", ["cause", "state"], "cause IS NOT NULL"),
    Index("ix_effects_user_id_without_attempt", "effects", ["user_id"], "attempt_id IS NULL"),
    Index("ix_tries_failed_at", "tries", ["finished_at"], "cause IS NOT NULL"),
    Index("ix_quarantine_user_id", "quarantine", ["user_id"], "user_id IS NOT NULL"),
    Index("ix_attempts_external_id", "attempts", ["external_id"], "external_id IS NOT NULL"),
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for index in INDEXES:
            # An earlier build that failed has left an invalid index behind.
            _drop(index)
            op.create_index(
                index.name,
                index.table,
                index.columns,
                postgresql_where=sa.text(index.where),
                postgresql_concurrently=True,
            )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for index in reversed(INDEXES):
            _drop(index)


def _drop(index: Index) -> None:
    op.drop_index(index.name, index.table, if_exists=True, postgresql_concurrently=True)
