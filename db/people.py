"""Names and addresses: read when an effect runs, and kept nowhere else."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from db.recordset import recordset


@dataclass(frozen=True, slots=True)
class LearnerContact:
    """A learner's name and address. Hidden from `repr`, and so from logs."""

    username: str = field(repr=False)
    email: str = field(repr=False)
    full_name: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class MailOwed:
    """A mail that is owed about an attempt: its effect, and whom and what it is about."""

    effect_id: UUID
    user_id: str
    exam_id: str
    course_id: str
    """The course of the exam when the mail came to be owed."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """A learner, and what a mail says about an attempt."""

    contact: LearnerContact
    language: str | None
    """A BCP 47 tag."""
    time_zone: str | None
    """An IANA name."""
    exam_name: str
    course_name: str | None
    """As the LMS told us. None where it did not."""
    provider: str | None
    gives_credit: bool
    """Whether the course does. True where the LMS did not tell."""
    at: datetime
    """When the attempt reached the status that the mail tells."""
    may_ask: bool
    """Whether the LMS may be asked for more: its circuit is not open."""


_LEARNER_CONTACT = "SELECT username, email, full_name FROM learners WHERE user_id = %(user_id)s"

# Each row is looked up by its key, which LIMIT 1 enforces: for a join PostgreSQL may read a whole table.
#
# The transition is the one that the effect's command made. It is looked up by (attempt_id, version).
_ADDRESSEES = """
SELECT
    owed.effect_id,
    learner.username,
    learner.email,
    learner.full_name,
    learner.language,
    learner.time_zone,
    exam.exam_name,
    course.name AS course_name,
    course.provider,
    coalesce(course.gives_credit, true) AS gives_credit,
    coalesce(transition.at, effect.created_at) AS at,
    NOT EXISTS (
        SELECT FROM circuits WHERE queue = %(lms_queue)s AND open_until > statement_timestamp()
    ) AS may_ask
FROM (
    SELECT * FROM json_to_recordset(%(owed)s) AS one (effect_id uuid, user_id text, exam_id text, course_id text)
    LIMIT %(number)s
) AS owed
JOIN LATERAL (SELECT * FROM effects WHERE id = owed.effect_id LIMIT 1) AS effect ON true
JOIN LATERAL (SELECT * FROM learners WHERE user_id = owed.user_id LIMIT 1) AS learner ON true
JOIN LATERAL (SELECT * FROM exams WHERE exam_id = owed.exam_id LIMIT 1) AS exam ON true
LEFT JOIN LATERAL (SELECT * FROM courses WHERE course_id = owed.course_id LIMIT 1) AS course ON true
LEFT JOIN LATERAL (
    SELECT at
    FROM transitions
    WHERE attempt_id = effect.attempt_id AND source = effect.source AND command_id = effect.command_id
    ORDER BY version DESC
    LIMIT 1
) AS transition ON true
"""


def learner_contact(connection: Connection, user_id: str) -> LearnerContact:
    """How to reach a learner. Every attempt has a learner.

    Raises:
        sqlalchemy.exc.NoResultFound: there is no such learner.
    """
    row = connection.exec_driver_sql(_LEARNER_CONTACT, {"user_id": user_id}).one()
    return LearnerContact(username=row.username, email=row.email, full_name=row.full_name)


def addressees(connection: Connection, mails: Sequence[MailOwed], lms_queue: str) -> dict[UUID, Addressee]:
    """Return to whom mails go, and what is known for them, by effect.

    Parameters:
        mails: about recorded attempts, so each has a learner and an exam.
        lms_queue: names the circuit of the LMS.
    """
    owed = recordset([asdict(mail) | {"effect_id": str(mail.effect_id)} for mail in mails])
    rows = connection.exec_driver_sql(
        _ADDRESSEES, {"owed": owed, "number": len(mails), "lms_queue": lms_queue}
    )
    return {
        row.effect_id: Addressee(
            contact=LearnerContact(username=row.username, email=row.email, full_name=row.full_name),
            language=row.language,
            time_zone=row.time_zone,
            exam_name=row.exam_name,
            course_name=(row.course_name or "").strip() or None,
            provider=row.provider,
            gives_credit=row.gives_credit,
            at=row.at,
            may_ask=row.may_ask,
        )
        for row in rows
    }
