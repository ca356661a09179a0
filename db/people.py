"""Names and addresses: read when an effect runs or an event is published that holds them, and kept nowhere else."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from db import prepared
from db.recordset import recordset


@dataclass(frozen=True, slots=True)
class LearnerContact:
    """A learner's name and address. Hidden from `repr`, and so from logs."""

    user_id: str
    username: str = field(repr=False)
    email: str = field(repr=False)
    full_name: str | None = field(repr=False)

    @property
    def is_erased(self) -> bool:
        """Whether names and addresses were erased, and no upsert has brought new ones since."""
        return not self.email


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


@dataclass(frozen=True, slots=True)
class Sitting:
    """What an event tells of an attempt: whose it is, at which exam, and which learner asked for the change."""

    event_id: UUID
    user_id: str
    exam_id: str
    requested_by: str | None


@dataclass(frozen=True, slots=True)
class ExamTaker:
    """The learner of an attempt, who asked for its change, and the kind of its exam."""

    learner: LearnerContact
    requester: LearnerContact
    """The learner, if no other learner has asked."""
    is_proctored: bool
    is_practice_exam: bool


_LEARNER_CONTACT = "SELECT user_id, username, email, full_name FROM learners WHERE user_id = %(user_id)s"

# Each row is looked up by its key, which LIMIT 1 enforces: for a join PostgreSQL may read a whole table.
#
# The transition is the one that the effect's command made. It is looked up by (attempt_id, version).
_ADDRESSEES = """
SELECT
    owed.effect_id,
    learner.user_id,
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

# Rows are looked up as above.
_EXAM_TAKERS = """
SELECT
    asked.event_id,
    learner.user_id,
    learner.username,
    learner.email,
    learner.full_name,
    requester.user_id AS requester_id,
    requester.username AS requester_username,
    requester.email AS requester_email,
    requester.full_name AS requester_full_name,
    exam.is_proctored,
    exam.is_practice_exam
FROM (
    SELECT *
    FROM json_to_recordset(%(sittings)s) AS one (event_id uuid, user_id text, exam_id text, requested_by text)
    LIMIT %(number)s
) AS asked
JOIN LATERAL (SELECT * FROM learners WHERE user_id = asked.user_id LIMIT 1) AS learner ON true
JOIN LATERAL (SELECT * FROM exams WHERE exam_id = asked.exam_id LIMIT 1) AS exam ON true
LEFT JOIN LATERAL (SELECT * FROM learners WHERE user_id = asked.requested_by LIMIT 1) AS requester ON true
"""


def learner_contact(connection: Connection, user_id: str) -> LearnerContact:
    """How to reach a learner. Every attempt has a learner.

    Raises:
        sqlalchemy.exc.NoResultFound: there is no such learner.
    """
    row = connection.exec_driver_sql(_LEARNER_CONTACT, {"user_id": user_id}).one()
    return _contact(row)


def addressees(connection: Connection, mails: Sequence[MailOwed], lms_queue: str) -> dict[UUID, Addressee]:
    """Return to whom mails go, and what is known for them, by effect.

    Parameters:
        mails: about recorded attempts, so each has a learner and an exam.
        lms_queue: names the circuit of the LMS.
    """
    owed = recordset([asdict(mail) | {"effect_id": str(mail.effect_id)} for mail in mails])
    rows = prepared.execute(
        connection, _ADDRESSEES, {"owed": owed, "number": len(mails), "lms_queue": lms_queue}
    )
    return {
        row.effect_id: Addressee(
            contact=_contact(row),
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


def exam_takers(connection: Connection, sittings: Sequence[Sitting]) -> dict[UUID, ExamTaker]:
    """Return the learner, the requester and the kind of exam of each sitting, by event.

    Parameters:
        sittings: of recorded attempts, so each has a learner and an exam.
    """
    rows = connection.exec_driver_sql(
        _EXAM_TAKERS, {"sittings": recordset([asdict(one) for one in sittings]), "number": len(sittings)}
    )
    return {row.event_id: _exam_taker(row) for row in rows}


def _contact(row: Any) -> LearnerContact:
    return LearnerContact(row.user_id, row.username, row.email, row.full_name)


def _exam_taker(row: Any) -> ExamTaker:
    learner = _contact(row)
    requester = (
        learner
        if row.requester_id is None
        else LearnerContact(
            row.requester_id, row.requester_username, row.requester_email, row.requester_full_name
        )
    )
    return ExamTaker(learner, requester, row.is_proctored, row.is_practice_exam)
