"""Builds the indexes by which pages of a cause and of a subscriber are read in order, however many effects they have."""

from typing import NamedTuple

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None
usable_from = "0006"


class Index(NamedTuple):
    """An index that is built while others write."""

    name: str
    columns: list[str]
    where: str


INDEXES = (
    Index("ix_effects_cause_created_at", ["cause", "created_at"], "cause IS NOT NULL"),
    Index("ix_effects_cause_state_failed_at", ["cause", "state", "failed_at"], "cause IS NOT NULL"),
    Index("ix_effects_subscriber_created_at", ["subscriber", "created_at"], "subscriber IS NOT NULL"),
)
# The second one begins with the same columns.
REPLACED = Index("ix_effects_cause_state", ["cause", "state"], "cause IS NOT NULL")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for index in INDEXES:
            _build(index)
        _drop(REPLACED)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _build(REPLACED)
        for index in reversed(INDEXES):
            _drop(index)


def _build(index: Index) -> None:
    # An earlier build that failed has left an invalid index behind.
    _drop(index)
    op.create_index(
        index.name,
        "effects",
        index.columns,
        postgresql_where=sa.text(index.where),
        postgresql_concurrently=True,
    )


def _drop(index: Index) -> None:
    op.drop_index(index.name, "effects", if_exists=True, postgresql_concurrently=True)
