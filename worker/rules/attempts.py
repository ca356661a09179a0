"""The plain values that the rules work on."""

from dataclasses import dataclass
from datetime import datetime

from events.vocabulary import Status


@dataclass(frozen=True, slots=True)
class Exam:
    """An exam as far as the rules look at it."""

    exam_id: str
    course_id: str
    content_id: str
    is_proctored: bool
    is_practice_exam: bool
    is_active: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """One learner's live attempt at one exam.

    `credit_owed` says that a credit status was owed for it at some time; it outlives pruned effects.
    """

    status: Status
    taking_as_proctored: bool = False
    is_sample_attempt: bool = False
    external_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    credit_owed: bool = False
