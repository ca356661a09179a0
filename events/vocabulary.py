"""The plain words of the wire: statuses, outcomes and codes.

Standard library only, so that the rules may use them.
"""

from enum import StrEnum
from typing import Self


class Status(StrEnum):
    """Where an attempt stands. The values are those of the systems that Invigilator replaces."""

    # incomplete: the learner may still work on it
    ELIGIBLE = "eligible"
    CREATED = "created"
    DOWNLOAD_SOFTWARE_CLICKED = "download_software_clicked"
    READY_TO_START = "ready_to_start"
    STARTED = "started"
    READY_TO_SUBMIT = "ready_to_submit"
    # completed: no way back to an incomplete status
    DECLINED = "declined"
    TIMED_OUT = "timed_out"
    SUBMITTED = "submitted"
    SECOND_REVIEW_REQUIRED = "second_review_required"
    VERIFIED = "verified"
    REJECTED = "rejected"
    NOT_REVIEWED = "not_reviewed"
    ERROR = "error"


INCOMPLETE: frozenset[Status] = frozenset(
    {
        Status.ELIGIBLE,
        Status.CREATED,
        Status.DOWNLOAD_SOFTWARE_CLICKED,
        Status.READY_TO_START,
        Status.STARTED,
        Status.READY_TO_SUBMIT,
    }
)
COMPLETED: frozenset[Status] = frozenset(Status) - INCOMPLETE


class Outcome(StrEnum):
    """What became of a command."""

    APPLIED = "applied"  # it changed something
    UNCHANGED = "unchanged"  # the attempt had that status already
    IGNORED = "ignored"  # nothing to do, and the sender or the policy said that this is fine
    REJECTED = "rejected"  # refused, with a code


class DetailedCode(StrEnum):
    """A code that comes with its detail, the sentence that is stored beside it.

    Raises:
        TypeError: at the definition of a class in which a code has none.
    """

    detail: str
    """In braces stand the names of values that `str.format` fills in."""

    def __new__(cls, value: str, detail: str = "") -> Self:
        code = str.__new__(cls, value)
        code._value_ = value
        code.detail = detail
        return code

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for code in cls:
            if not code.detail:
                raise TypeError(f"{cls.__name__}.{code.name}: write its detail beside it")


class OutcomeCode(DetailedCode):
    """Why a command was rejected or ignored.

    Example:
        >>> OutcomeCode("illegal_transition").detail.format(before="verified", to_status="started")
        'verified cannot become started'
    """

    ATTEMPT_NOT_FOUND = "attempt_not_found", "the learner has no live attempt at this exam"
    EXAM_NOT_FOUND = "exam_not_found", "no such exam; send exam.upsert.v1 first"
    LEARNER_NOT_FOUND = "learner_not_found", "no such learner; send learner.upsert.v1 first"
    ATTEMPT_EXISTS = "attempt_exists", "the learner has a live attempt at this exam; remove it first"
    ATTEMPT_CODE_TAKEN = "attempt_code_taken", "another attempt has this attempt_code; choose a new one"
    STALE_ATTEMPT = (
        "stale_attempt",
        "the live attempt of the learner at this exam is not the one that is named",
    )
    PRECONDITION_FAILED = "precondition_failed", "{before} is not among from_statuses"
    ILLEGAL_TRANSITION = "illegal_transition", "{before} cannot become {to_status}"
    UNKNOWN_STATUS = "unknown_status", "to_status is no status"
    LATE_TIMEOUT = "late_timeout", "a verdict is protected from a late time-out"
    OVERTAKEN = "overtaken", "a newer description was applied before"
    VERDICT_PROTECTED = "verdict_protected", "{before} is a verdict; only a verdict may replace it"


class QuarantineCode(StrEnum):
    """Why a message is no valid command."""

    NOT_JSON = "not_json"
    NOT_CLOUDEVENT = "not_cloudevent"
    UNKNOWN_TYPE = "unknown_type"
    INVALID_DATA = "invalid_data"
    TOO_LARGE = "too_large"
    ID_REUSED = "id_reused"
    FAILED = "failed"
    BAD_SIGNATURE = "bad_signature"
    NOT_ALLOWED = "not_allowed"
    WRONG_SHARD = "wrong_shard"


class IfMissing(StrEnum):
    """What the sender of a command wants when the attempt that it is about is not there."""

    REJECT = "reject"
    IGNORE = "ignore"
