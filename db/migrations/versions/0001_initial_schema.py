"""Creates the initial schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
usable_from = "0001"


def upgrade() -> None:
    op.execute(sa.schema.CreateSequence(sa.Sequence("try_sequence")))
    op.create_table(
        "courses",
        sa.Column("course_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("course_id", name=op.f("pk_courses")),
    )
    op.create_table(
        "exams",
        sa.Column("exam_id", sa.Text(), nullable=False),
        sa.Column("course_id", sa.Text(), nullable=False),
        sa.Column("content_id", sa.Text(), nullable=False),
        sa.Column("exam_name", sa.Text(), nullable=False),
        sa.Column("is_proctored", sa.Boolean(), nullable=False),
        sa.Column("is_practice_exam", sa.Boolean(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("time_limit_mins", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("exam_id", name=op.f("pk_exams")),
    )
    op.create_index(op.f("ix_exams_course_id"), "exams", ["course_id"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("octet_length(fingerprint) = 32", name=op.f("ck_inbox_fingerprint")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbox")),
        sa.UniqueConstraint("source", "command_id", name=op.f("uq_inbox_source_command_id")),
    )
    op.create_table(
        "learners",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_learners")),
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("headers", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "code IN ('not_json', 'not_cloudevent', 'unknown_type', 'invalid_data', 'too_large', 'id_reused', 'failed')",
            name=op.f("ck_quarantine_code"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
    )
    op.create_table(
        "shards",
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(owner IS NULL) = (lease_until IS NULL)", name=op.f("ck_shards_owner_has_lease")),
        sa.CheckConstraint("shard >= 0", name=op.f("ck_shards_shard")),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_shards")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("exam_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("taking_as_proctored", sa.Boolean(), nullable=False),
        sa.Column("is_sample_attempt", sa.Boolean(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("credit_owed", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('eligible', 'created', 'download_software_clicked', 'ready_to_start', 'started', 'ready_to_submit', 'declined', 'timed_out', 'submitted', 'second_review_required', 'verified', 'rejected', 'not_reviewed', 'error')",
            name=op.f("ck_attempts_status"),
        ),
        sa.CheckConstraint("version >= 1", name=op.f("ck_attempts_version")),
        sa.ForeignKeyConstraint(["exam_id"], ["exams.exam_id"], name=op.f("fk_attempts_exam_id")),
        sa.ForeignKeyConstraint(["user_id"], ["learners.user_id"], name=op.f("fk_attempts_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
    )
    op.create_index(
        op.f("ix_attempts_exam_id_user_id_removed_at"),
        "attempts",
        ["exam_id", "user_id", "removed_at"],
        unique=False,
    )
    op.create_index(op.f("ix_attempts_status"), "attempts", ["status"], unique=False)
    op.create_index(op.f("ix_attempts_user_id"), "attempts", ["user_id"], unique=False)
    op.create_index(
        "uq_attempts_live",
        "attempts",
        ["exam_id", "user_id"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_table(
        "outcomes",
        sa.Column("inbox_id", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(outcome IN ('rejected', 'ignored')) = (code IS NOT NULL)", name=op.f("ck_outcomes_code")
        ),
        sa.CheckConstraint(
            "outcome IN ('applied', 'unchanged', 'ignored', 'rejected')", name=op.f("ck_outcomes_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["inbox_id"], ["inbox.id"], name=op.f("fk_outcomes_inbox_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("inbox_id", name=op.f("pk_outcomes")),
    )
    op.create_index(
        op.f("ix_outcomes_code_handled_at"),
        "outcomes",
        ["code", "handled_at"],
        unique=False,
        postgresql_where=sa.text("code IS NOT NULL"),
    )
    op.create_index(op.f("ix_outcomes_handled_at"), "outcomes", ["handled_at"], unique=False)
    op.create_index(
        op.f("ix_outcomes_outcome_handled_at"),
        "outcomes",
        ["outcome", "handled_at"],
        unique=False,
        postgresql_where=sa.text("outcome <> 'applied'"),
    )
    op.create_table(
        "effects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("offered_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retrying_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'done') = (done_at IS NOT NULL)", name=op.f("ck_effects_done_has_time")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name=op.f("ck_effects_running_has_lease")
        ),
        sa.CheckConstraint(
            "kind IN ('set_credit_status', 'remove_credit_status', 'cascade_decline', 'send_status_email', 'delete_student_attempt')",
            name=op.f("ck_effects_kind"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'done', 'failed', 'superseded', 'cancelled')",
            name=op.f("ck_effects_state"),
        ),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_effects_attempt_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_effects")),
        sa.UniqueConstraint("sequence", name=op.f("uq_effects_sequence")),
    )
    op.create_index(op.f("ix_effects_attempt_id"), "effects", ["attempt_id"], unique=False)
    op.create_index(op.f("ix_effects_created_at"), "effects", ["created_at"], unique=False)
    op.create_index(
        "ix_effects_due",
        "effects",
        ["kind", "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(op.f("ix_effects_kind_created_at"), "effects", ["kind", "created_at"], unique=False)
    op.create_index(
        "ix_effects_leased",
        "effects",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_effects_offered",
        "effects",
        ["kind", "offered_until"],
        unique=False,
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_effects_owed_cascades",
        "effects",
        ["user_id"],
        unique=False,
        postgresql_where=sa.text("kind = 'cascade_decline' AND state IN ('pending', 'running')"),
    )
    op.create_index(op.f("ix_effects_state_created_at"), "effects", ["state", "created_at"], unique=False)
    op.create_index(
        "ix_effects_target",
        "effects",
        ["target", "sequence"],
        unique=False,
        postgresql_where=sa.text("target IS NOT NULL"),
    )
    op.create_index(
        "uq_effects_running_target",
        "effects",
        ["target"],
        unique=True,
        postgresql_where=sa.text("state = 'running' AND target IS NOT NULL"),
    )
    op.create_table(
        "transitions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("command_id", sa.Text(), nullable=False),
        sa.Column("effect_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "from_status IN ('eligible', 'created', 'download_software_clicked', 'ready_to_start', 'started', 'ready_to_submit', 'declined', 'timed_out', 'submitted', 'second_review_required', 'verified', 'rejected', 'not_reviewed', 'error')",
            name=op.f("ck_transitions_from_status"),
        ),
        sa.CheckConstraint(
            "to_status IN ('eligible', 'created', 'download_software_clicked', 'ready_to_start', 'started', 'ready_to_submit', 'declined', 'timed_out', 'submitted', 'second_review_required', 'verified', 'rejected', 'not_reviewed', 'error')",
            name=op.f("ck_transitions_to_status"),
        ),
        sa.CheckConstraint(
            "(version = 1) = (from_status IS NULL)", name=op.f("ck_transitions_first_creates")
        ),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_transitions_attempt_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transitions")),
        sa.UniqueConstraint("attempt_id", "version", name=op.f("uq_transitions_attempt_id_version")),
    )
    op.create_table(
        "tries",
        sa.Column("effect_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "result IN ('done', 'retry', 'failed', 'lost', 'folded')", name=op.f("ck_tries_result")
        ),
        sa.CheckConstraint(
            "(result IS NULL) = (finished_at IS NULL)", name=op.f("ck_tries_finished_has_result")
        ),
        sa.ForeignKeyConstraint(
            ["effect_id"], ["effects.id"], name=op.f("fk_tries_effect_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("effect_id", "number", name=op.f("pk_tries")),
    )


def downgrade() -> None:
    op.drop_table("tries")
    op.drop_table("transitions")
    op.drop_index(
        "uq_effects_running_target",
        table_name="effects",
        postgresql_where=sa.text("state = 'running' AND target IS NOT NULL"),
    )
    op.drop_index("ix_effects_target", table_name="effects", postgresql_where=sa.text("target IS NOT NULL"))
    op.drop_index(op.f("ix_effects_state_created_at"), table_name="effects")
    op.drop_index(
        "ix_effects_owed_cascades",
        table_name="effects",
        postgresql_where=sa.text("kind = 'cascade_decline' AND state IN ('pending', 'running')"),
    )
    op.drop_index("ix_effects_offered", table_name="effects", postgresql_where=sa.text("state = 'pending'"))
    op.drop_index("ix_effects_leased", table_name="effects", postgresql_where=sa.text("state = 'running'"))
    op.drop_index(op.f("ix_effects_kind_created_at"), table_name="effects")
    op.drop_index("ix_effects_due", table_name="effects", postgresql_where=sa.text("state = 'pending'"))
    op.drop_index(op.f("ix_effects_created_at"), table_name="effects")
    op.drop_index(op.f("ix_effects_attempt_id"), table_name="effects")
    op.drop_table("effects")
    op.drop_index(
        op.f("ix_outcomes_outcome_handled_at"),
        table_name="outcomes",
        postgresql_where=sa.text("outcome <> 'applied'"),
    )
    op.drop_index(op.f("ix_outcomes_handled_at"), table_name="outcomes")
    op.drop_index(
        op.f("ix_outcomes_code_handled_at"),
        table_name="outcomes",
        postgresql_where=sa.text("code IS NOT NULL"),
    )
    op.drop_table("outcomes")
    op.drop_index("uq_attempts_live", table_name="attempts", postgresql_where=sa.text("removed_at IS NULL"))
    op.drop_index(op.f("ix_attempts_user_id"), table_name="attempts")
    op.drop_index(op.f("ix_attempts_status"), table_name="attempts")
    op.drop_index(op.f("ix_attempts_exam_id_user_id_removed_at"), table_name="attempts")
    op.drop_table("attempts")
    op.drop_table("shards")
    op.drop_table("quarantine")
    op.drop_table("learners")
    op.drop_table("inbox")
    op.drop_index(op.f("ix_exams_course_id"), table_name="exams")
    op.drop_table("exams")
    op.drop_table("courses")
    op.execute(sa.schema.DropSequence(sa.Sequence("try_sequence")))
