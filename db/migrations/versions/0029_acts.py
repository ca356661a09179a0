"""Creates the audit. A trigger refuses changes of its rows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None
usable_from = "0006"


# `reason` and `salt` may be taken away, together, for a learner who is erased.
REFUSE = """
CREATE FUNCTION refuse_change_of_acts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.reason IS NULL
            AND NEW.salt IS NULL
            AND to_jsonb(NEW) - 'reason' - 'salt' = to_jsonb(OLD) - 'reason' - 'salt'
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the table acts is append only' USING ERRCODE = 'restrict_violation';
END
$$
"""
EVENTS = {
    "acts_are_append_only": "UPDATE OR DELETE ON acts FOR EACH ROW",
    "acts_are_not_truncated": "TRUNCATE ON acts FOR EACH STATEMENT",
}


def upgrade() -> None:
    op.create_table(
        "acts",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("act_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("closing", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("is_claimed", sa.Boolean(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("filter", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("details", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("salt", sa.LargeBinary(), nullable=True),
        sa.Column("reason_digest", sa.LargeBinary(), nullable=True),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "octet_length(hash) = 32 AND octet_length(previous) = 32", name=op.f("ck_acts_hashes")
        ),
        sa.CheckConstraint("(reason IS NULL) = (salt IS NULL)", name=op.f("ck_acts_reason_has_salt")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_acts")),
        sa.UniqueConstraint("act_id", "step", name=op.f("uq_acts_act_id_step")),
    )
    op.create_index(op.f("ix_acts_at"), "acts", ["at"])
    op.create_index(
        op.f("ix_acts_user_id_at"), "acts", ["user_id", "at"], postgresql_where=sa.text("user_id IS NOT NULL")
    )
    op.execute(REFUSE)
    for name, event in EVENTS.items():
        op.execute(f"CREATE TRIGGER {name} BEFORE {event} EXECUTE FUNCTION refuse_change_of_acts()")


def downgrade() -> None:
    op.drop_table("acts")
    op.execute("DROP FUNCTION refuse_change_of_acts()")
