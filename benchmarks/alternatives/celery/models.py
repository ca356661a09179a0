"""Models of the small application's tables (`benchmarks.alternatives.rules.TABLES`) with SQLAlchemy's ORM."""

from datetime import UTC, datetime

from sqlalchemy import DateTime, ForeignKey, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from benchmarks.alternatives.rules import SCHEMA


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """The base of the models. Times have a time zone."""

    metadata = MetaData(schema=SCHEMA)
    type_annotation_map = {datetime: DateTime(timezone=True)}  # noqa: RUF012 - as SQLAlchemy documents it


class Exam(Base):
    """An exam of a course. All exams are proctored and active."""

    __tablename__ = "exams"

    id: Mapped[str] = mapped_column(primary_key=True)
    course_id: Mapped[str] = mapped_column(index=True)


class Attempt(Base):
    """A learner's attempt at an exam."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("user_id", "exam_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    exam_id: Mapped[str] = mapped_column(ForeignKey(Exam.id))
    status: Mapped[str]
    taking_as_proctored: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class History(Base):
    """A change of status."""

    __tablename__ = "history"

    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey(Attempt.id), index=True)
    from_status: Mapped[str | None]
    to_status: Mapped[str]
    at: Mapped[datetime] = mapped_column(default=now)

    attempt: Mapped[Attempt] = relationship()
