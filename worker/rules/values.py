"""The values that the rules work on."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from events.vocabulary import IfMissing, Status

Requirement = tuple[str, str]
"""A credit requirement of a learner: the ids of the course and of the content."""


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
    remove"). `credit_told` names the credit requirements that the attempt has set.

    `code` is the attempt's own, or None for an attempt that is not recorded. `external_ids` are all that the
    attempt ever had.
    """

    status: Status
    taking_as_proctored: bool = False
    is_sample_attempt: bool = False
    external_id: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    credit_owed: bool = False
    code: str | None = None
    external_ids: frozenset[str] = frozenset()
    credit_told: frozenset[Requirement] = frozenset()


@dataclass(frozen=True, slots=True)
class Precondition:
    """Which attempt a command means, and how it must be found (docs/rules.md, "Which attempt").

    Parameters:
        attempt_code: the code of the attempt that is meant, or None.
        external_id: an external id that the attempt has or had, or None.
        from_statuses: the statuses in which the command may find the attempt; None for any.
        if_missing: whether an attempt that is missing makes the outcome `rejected` or `ignored`.
    """

    attempt_code: str | None = None
    external_id: str | None = None
    from_statuses: Collection[Status] | None = None
    if_missing: IfMissing = IfMissing.REJECT

    @property
    def names_an_attempt(self) -> bool:
        """Whether the command says more than the exam and the learner."""
        return self.attempt_code is not None or self.external_id is not None

    def means(self, attempt: Attempt) -> bool:
        """Return whether this is the attempt that is meant. It must fit whatever the command names."""
        return self.attempt_code in (None, attempt.code) and (
            self.external_id is None or self.external_id in attempt.external_ids
        )

    def allows(self, status: Status) -> bool:
        """Return whether the command may find the attempt in this status."""
        return self.from_statuses is None or status in self.from_statuses


NO_PRECONDITION = Precondition()
