"""Whom a learner's story is about: names, and every attempt. What happened is in `db.timeline`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class AttemptSummary:
    """An attempt, in the words of a heading.

    Parameters:
        since: when it came to have its status.
        owed: how many of its effects are pending or running.
        failed: how many have failed for good.
        cancelled: how many a person has cancelled.
    """

    attempt_code: str
    exam_id: str
    exam_name: str
    course_id: str
    status: str
    started_at: datetime | None
    completed_at: datetime | None
    removed_at: datetime | None
    since: datetime | None
    owed: int
    failed: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class Heading:
    """Whom a story is about. Names are hidden from `repr`, and so from logs.

    Parameters:
        user_id: the learner.
        username: None if nobody has described the learner.
        full_name: None if it is not known.
        erased_at: when the learner was erased last.
        attempts: all attempts, removed ones too, in the order in which they began.
        is_described: whether the learner is known. Commands may be about one who is not.
    """

    user_id: str
    username: str | None = field(repr=False)
    full_name: str | None = field(repr=False)
    erased_at: datetime | None
    attempts: Sequence[AttemptSummary]
    is_described: bool

    def exam_names(self) -> dict[str, str]:
        """Return the names of the exams that the learner has attempted, by their ids."""
        return {one.exam_id: one.exam_name for one in self.attempts}


_LEARNER = "SELECT username, full_name, erased_at FROM learners WHERE user_id = %(user_id)s"

_ATTEMPTS = """
SELECT
    coalesce(attempt.attempt_code, attempt.id::text) AS attempt_code, attempt.exam_id, exam.exam_name,
    exam.course_id, attempt.status, attempt.started_at, attempt.completed_at, attempt.removed_at,
    newest.at AS since, following.owed, following.failed, following.cancelled
FROM attempts AS attempt
JOIN exams AS exam ON exam.exam_id = attempt.exam_id
LEFT JOIN LATERAL (
    SELECT at FROM transitions WHERE attempt_id = attempt.id ORDER BY version DESC LIMIT 1
) AS newest ON true
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE state IN ('pending', 'running')) AS owed,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE state = 'cancelled') AS cancelled
    FROM effects
    WHERE attempt_id = attempt.id
) AS following
WHERE attempt.user_id = %(user_id)s
ORDER BY attempt.id
"""


def heading(connection: Connection, user_id: str) -> Heading:
    """Return whom a story is about. For nobody's id all but the id is empty."""
    learner: Any = connection.exec_driver_sql(_LEARNER, {"user_id": user_id}).one_or_none()
    attempts = connection.exec_driver_sql(_ATTEMPTS, {"user_id": user_id})
    return Heading(
        user_id=user_id,
        username=None if learner is None else learner.username,
        full_name=None if learner is None else learner.full_name,
        erased_at=None if learner is None else learner.erased_at,
        attempts=[AttemptSummary(**row._mapping) for row in attempts],
        is_described=learner is not None,
    )
