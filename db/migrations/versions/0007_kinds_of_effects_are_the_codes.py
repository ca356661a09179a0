"""Leaves the kinds of effects to the code, so that a new kind needs no validation of the whole table."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
usable_from = "0006"

KINDS = "'set_credit_status', 'remove_credit_status', 'cascade_decline', 'send_status_email', 'delete_student_attempt'"


def upgrade() -> None:
    # It may be gone: a database that was restored in parts can have 0007 without its number.
    op.drop_constraint(op.f("ck_effects_kind"), "effects", type_="check", if_exists=True)


def downgrade() -> None:
    op.create_check_constraint(
        op.f("ck_effects_kind"), "effects", f"kind IN ({KINDS})", postgresql_not_valid=True
    )
