"""Names and addresses: read where an effect is run, kept nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Text, bindparam, exists, select

from db import circuits
from db.models import Circuit, Course, Exam, Learner
from db.rows import rows_from_arrays


@dataclass(frozen=True, slots=True)
class LearnerContact:
    """How a learner is known and reached. Hidden from `repr`, and so from logs."""

    username: str = field(repr=False)
    email: str = field(repr=False)
    full_name: str | None = field(repr=False)


def learner_contact(connection: Connection, user_id: str) -> LearnerContact:
    """The learner of an attempt; attempts have one for certain.

    Raises:
        sqlalchemy.exc.NoResultFound: no such learner.
    """
    row = connection.execute(
        select(Learner.username, Learner.email, Learner.full_name).where(Learner.user_id == user_id)
    ).one()
    return LearnerContact(row.username, row.email, row.full_name)


@dataclass(frozen=True, slots=True)
class Attempted:
    """Names an attempt: whose, at which exam, and in which course that was when the mail came to be owed."""

    user_id: str
    exam_id: str
    course_id: str


@dataclass(frozen=True, slots=True)
class Addressee:
    """A learner, and what a mail says about an attempt."""

    contact: LearnerContact
    exam_name: str
    course_name: str | None
    """As the LMS told us; None where it did not."""
    may_ask: bool
    """Whether the LMS may be asked for more: its circuit is not open."""


def addressees(
    connection: Connection, attempts: Sequence[Attempted], lms_queue: str
) -> dict[Attempted, Addressee]:
    """Whom to write to about attempts, and what is known for it. An attempt has a learner and an exam for certain.

    `lms_queue` names the circuit of the LMS.
    """
    rows = connection.execute(
        _addressees_statement(),
        {
            "attempt_user_id": [attempt.user_id for attempt in attempts],
            "attempt_exam_id": [attempt.exam_id for attempt in attempts],
            "attempt_course_id": [attempt.course_id for attempt in attempts],
            "lms_queue": lms_queue,
        },
    )
    return {
        Attempted(row.user_id, row.exam_id, row.course_id): Addressee(
            LearnerContact(row.username, row.email, row.full_name),
            row.exam_name,
            (row.course_name or "").strip() or None,
            not row.is_open,
        )
        for row in rows
    }


@cache
def _addressees_statement() -> Select[*tuple[Any, ...]]:
    attempt = rows_from_arrays("attempt", user_id=Text, exam_id=Text, course_id=Text)
    is_open = exists().where(Circuit.queue == bindparam("lms_queue"), circuits.IS_OPEN)
    return (
        select(
            attempt,
            Learner.username,
            Learner.email,
            Learner.full_name,
            Exam.exam_name,
            Course.name.label("course_name"),
            is_open.label("is_open"),
        )
        .select_from(attempt.outerjoin(Course, Course.course_id == attempt.c.course_id))
        .where(Learner.user_id == attempt.c.user_id, Exam.exam_id == attempt.c.exam_id)
    )
