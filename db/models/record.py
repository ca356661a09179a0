"""The record: courses, exams, learners, their attempts, and the history of each attempt."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, Text, UniqueConstraint, text, true
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, one_of
from events.vocabulary import Status


class Course(Base):
    """A course, as the LMS has described it."""

    __tablename__ = "courses"

    course_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    provider: Mapped[str | None]
    gives_credit: Mapped[bool] = mapped_column(server_default=true())
    described_at: Mapped[datetime | None]
    """The time of the last upsert that was applied. Null before revision 0010."""


class Exam(Base):
    """An exam. Its course may not be known yet, so `course_id` is no foreign key."""

    __tablename__ = "exams"
    __table_args__ = (Index(None, "course_id"),)

    exam_id: Mapped[str] = mapped_column(primary_key=True)
    course_id: Mapped[str]
    content_id: Mapped[str]
    exam_name: Mapped[str]
    is_proctored: Mapped[bool]
    is_practice_exam: Mapped[bool]
    is_active: Mapped[bool]
    time_limit_mins: Mapped[int | None] = mapped_column(Integer)
    described_at: Mapped[datetime | None]
    """The time of the last upsert that was applied. Null before revision 0011."""


class Learner(Base):
    """A learner. Whoever changes a learner's attempts locks this row first: one lock per learner."""

    __tablename__ = "learners"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    username: Mapped[str]
    email: Mapped[str]
    full_name: Mapped[str | None]
    language: Mapped[str | None]
    """A BCP 47 tag."""
    time_zone: Mapped[str | None]
    """A name of the IANA time zone database."""
    described_at: Mapped[datetime | None]
    """The time of the last upsert that was applied. Null before revision 0012."""
    erased_at: Mapped[datetime | None]
    """When their names and addresses were erased. An upsert afterwards brings new ones."""


class Attempt(Base):
    """A learner's attempt at an exam. One that was removed is kept, and has `removed_at`."""

    __tablename__ = "attempts"
    __table_args__ = (
        one_of("status", Status),
        CheckConstraint("version >= 1", name="version"),
        Index(
            "uq_attempts_live",
            "user_id",
            "exam_id",
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
        Index("uq_attempts_code", text("COALESCE(attempt_code, id::text)"), unique=True),
        Index(None, "exam_id", "user_id", "removed_at"),
        Index(None, "user_id"),
        Index(None, "status", "id"),
        Index(None, "exam_id", "id"),
        Index(None, "external_id", postgresql_where=text("external_id IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    exam_id: Mapped[str] = mapped_column(ForeignKey("exams.exam_id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("learners.user_id"))
    status: Mapped[str]
    taking_as_proctored: Mapped[bool]
    is_sample_attempt: Mapped[bool]
    attempt_code: Mapped[str | None]
    """The code that the LMS has chosen. Null where it has chosen none: then the id's text is the code."""
    external_id: Mapped[str | None]
    external_ids: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """Every external id that the attempt ever had. The present one counts, even if it is missing here."""
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    credit_owed: Mapped[bool]
    """Whether a credit status was ever owed. A removal needs this when the effects have been pruned."""
    credit_told: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The pairs [course_id, content_id] of the credit requirements that effects of the attempt have set.

    Null where there are none, or where a release before revision 0008 has set them.
    """
    version: Mapped[int] = mapped_column(Integer)
    """The number of transitions so far."""
    created_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class Transition(Base):
    """An applied change of status, kept for ever. `version` counts 1, 2, 3 … in each attempt, gapless."""

    __tablename__ = "transitions"
    __table_args__ = (
        one_of("from_status", Status),
        one_of("to_status", Status),
        CheckConstraint("(version = 1) = (from_status IS NULL)", name="first_creates"),
        UniqueConstraint("attempt_id", "version"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    attempt_id: Mapped[UUID] = mapped_column(ForeignKey("attempts.id"))
    version: Mapped[int] = mapped_column(Integer)
    from_status: Mapped[str | None]
    to_status: Mapped[str]
    at: Mapped[datetime]
    """When it happened."""
    recorded_at: Mapped[datetime | None]
    """When it was handled. Null before revision 0009: then it is `at`."""
    source: Mapped[str]
    """With `command_id`, names the command that caused it; for a cascade, the one that started the cascade."""
    command_id: Mapped[str]
    effect_id: Mapped[UUID | None]
    """The cascade that it is part of."""
