"""Creates the list of the effects that an act has changed."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None
usable_from = "0006"


def upgrade() -> None:
    op.create_table(
        "act_targets",
        sa.Column("act_sequence", sa.BigInteger(), nullable=False),
        sa.Column("effect_id", sa.Uuid(), nullable=False),
        sa.Column("before", sa.Text(), nullable=False),
        sa.Column("after", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["act_sequence"], ["acts.sequence"], name=op.f("fk_act_targets_act_sequence")
        ),
        sa.PrimaryKeyConstraint("act_sequence", "effect_id", name=op.f("pk_act_targets")),
    )
    op.create_index(op.f("ix_act_targets_effect_id"), "act_targets", ["effect_id"])


def downgrade() -> None:
    op.drop_table("act_targets")
