"""Builds the indexes on the columns that 0008 to 0016 have added.

None of them holds a row of an older release, except the one on the codes of attempts. That one reads the whole table once.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
usable_from = "0006"


class Index(NamedTuple):
    """An index that is built while others write."""

    name: str
    table: str
    columns: list[Any]
    unique: bool
    where: str | None


INDEXES = (
    Index("uq_attempts_code", "attempts", [sa.text("COALESCE(attempt_code, id::text)")], True, None),
    Index(
        "ix_outcomes_user_id_handled_at", "outcomes", ["user_id", "handled_at"], False, "user_id IS NOT NULL"
    ),
    Index(
        "ix_quarantine_source_command_id", "quarantine", ["source", "command_id"], False, "source IS NOT NULL"
    ),
    Index("ix_effects_order_key", "effects", ["order_key", "sequence"], False, "order_key IS NOT NULL"),
    Index(
        "uq_effects_running_order_key",
        "effects",
        ["order_key"],
        True,
        "state = 'running' AND order_key IS NOT NULL",
    ),
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
                unique=index.unique,
                postgresql_where=None if index.where is None else sa.text(index.where),
                postgresql_concurrently=True,
            )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for index in reversed(INDEXES):
            _drop(index)


def _drop(index: Index) -> None:
    op.drop_index(index.name, index.table, if_exists=True, postgresql_concurrently=True)
