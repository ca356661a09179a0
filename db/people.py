"""Names and addresses: read when an effect runs, and kept nowhere else."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection

from db.recordset import recordset


@dataclass(frozen=True, slots=True)
class LearnerContact:
    """A learner's name and address. Hidden from `repr`, and so from logs."""

    username: str = field(repr=False)
    email: str = field(repr=False)
    full_name: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Attempted:
    """Names an attempt: its learner, its exam, and the course of the exam when the mail came to be owed."""

    user_id: str
    exam_id: str
    course_id: str


@dataclass(frozen=True, slots=True)
class Addressee:
    """A learner, and what a mail says about an attempt."""

    contact: LearnerContact
    exam_name: str
    course_name: str | None
    """As the LMS told us. None where it did not."""
    may_ask: bool
    """Whether the LMS may be asked for more: its circuit is not open."""


_LEARNER_CONTACT = "SELECT username, email, full_name FROM learners WHERE user_id = %(user_id)s"

_ADDRESSEES = """
SELECT
    attempted.user_id,
    attempted.exam_id,
    attempted.course_id,
    learner.username,
    learner.email,
    learner.full_name,
    exam.exam_name,
    course.name AS course_name,
    NOT EXISTS (
        SELECT FROM circuits WHERE queue = %(lms_queue)s AND open_until > statement_timestamp()
    ) AS may_ask
FROM (
    SELECT * FROM json_to_recordset(%(attempted)s) AS one (user_id text, exam_id text, course_id text)
    LIMIT %(number)s
) AS attempted
JOIN learners AS learner ON learner.user_id = attempted.user_id
JOIN exams AS exam ON exam.exam_id = attempted.exam_id
LEFT JOIN courses AS course ON course.course_id = attempted.course_id
"""


def learner_contact(connection: Connection, user_id: str) -> LearnerContact:
    """How to reach a learner. Every attempt has a learner.

    Raises:
        sqlalchemy.exc.NoResultFound: there is no such learner.
    """
    row = connection.exec_driver_sql(_LEARNER_CONTACT, {"user_id": user_id}).one()
    return LearnerContact(username=row.username, email=row.email, full_name=row.full_name)


def addressees(
    connection: Connection, attempts: Sequence[Attempted], lms_queue: str
) -> dict[Attempted, Addressee]:
    """Who is to be written to about attempts, and what is known for the mail.

    Parameters:
        attempts: recorded ones, so each has a learner and an exam.
        lms_queue: names the circuit of the LMS.
    """
    attempted = recordset([asdict(attempt) for attempt in attempts])
    rows = connection.exec_driver_sql(
        _ADDRESSEES, {"attempted": attempted, "number": len(attempts), "lms_queue": lms_queue}
    )
    return {
        Attempted(user_id=row.user_id, exam_id=row.exam_id, course_id=row.course_id): Addressee(
            contact=LearnerContact(username=row.username, email=row.email, full_name=row.full_name),
            exam_name=row.exam_name,
            course_name=(row.course_name or "").strip() or None,
            may_ask=row.may_ask,
        )
        for row in rows
    }
