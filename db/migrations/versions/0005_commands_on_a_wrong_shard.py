"""Lets commands that came on a wrong shard go to quarantine."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
usable_from = "0005"

CODES = (
    "'not_json', 'not_cloudevent', 'unknown_type', 'invalid_data', 'too_large', 'id_reused', 'failed', "
    "'bad_signature', 'not_allowed'"
)


def upgrade() -> None:
    # The quarantine is bounded, so validating the constraint at once takes little time.
    _allow_codes(f"{CODES}, 'wrong_shard'")


def downgrade() -> None:
    op.execute("UPDATE quarantine SET code = 'failed' WHERE code = 'wrong_shard'")
    _allow_codes(CODES)


def _allow_codes(codes: str) -> None:
    op.drop_constraint(op.f("ck_quarantine_code"), "quarantine", type_="check")
    op.create_check_constraint(op.f("ck_quarantine_code"), "quarantine", f"code IN ({codes})")
