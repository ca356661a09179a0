"""The values that the rules work on."""

from dataclasses import dataclass
from datetime import datetime

from events.vocabulary import Status


@dataclass(frozen=True, slots=True)
class Exam:
    """The fields of an exam that the rules need."""

    exam_id: str
    course_id: str
    content_id: str
    is_proctored: bool
    is_practice_exam: bool
    is_active: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """One learner's live attempt at one exam. Its times are aware datetimes.

    `credit_owed` is true once any credit status was owed for the attempt. A removal must then remove the credit.
    The flag is kept on the attempt because the effects themselves may be pruned (docs/rules.md, "Create and
    remove").
    """

    status: Status
    taking_as_proctored: bool = False
    is_sample_attempt: bool = False
    external_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    credit_owed: bool = False
