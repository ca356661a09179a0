"""What a change is made to, and what causes it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from worker.rules.values import Attempt


@dataclass(frozen=True, slots=True)
class Cause:
    """What causes a change.

    Parameters:
        source: with `command_id`, names the command.
        command_id: unique within the source.
        at: when it happened, as far as that is believed.
        handled_at: the moment of handling.
        ids: for the rows that follow from it.
        effect_id: the cascade that makes the change, if one does.
        cascaded_from: the code of the attempt that started that cascade.
        traceparent: the trace of the command, if it has one.
    """

    source: str
    command_id: str
    at: datetime
    handled_at: datetime
    ids: Iterator[UUID]
    effect_id: UUID | None = None
    cascaded_from: str | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class AttemptRecord:
    """An attempt and where it is stored.

    `attempt_code` is the code that the LMS has chosen, or None. `changed_at` is the time of the last transition.
    """

    id: UUID
    exam_id: str
    user_id: str
    attempt_code: str | None
    attempt: Attempt
    version: int
    created_at: datetime
    changed_at: datetime
    removed_at: datetime | None = None

    def moment(self, cause: Cause) -> datetime:
        """Return when the next change happens. The history never runs backwards, however late a command comes."""
        return max(cause.at, self.changed_at)

    def row(self) -> dict[str, Any]:
        """The attempt as a row of its table."""
        return {
            "id": self.id,
            "exam_id": self.exam_id,
            "user_id": self.user_id,
            "attempt_code": self.attempt_code,
            "status": self.attempt.status,
            "taking_as_proctored": self.attempt.taking_as_proctored,
            "is_sample_attempt": self.attempt.is_sample_attempt,
            "external_id": self.attempt.external_id,
            "external_ids": sorted(self.attempt.external_ids) or None,
            "started_at": self.attempt.started_at,
            "completed_at": self.attempt.completed_at,
            "credit_owed": self.attempt.credit_owed,
            "credit_told": sorted(self.attempt.credit_told) or None,
            "version": self.version,
            "created_at": self.created_at,
            "removed_at": self.removed_at,
        }
