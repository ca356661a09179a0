"""The plain words of the wire: statuses, outcomes and codes.

Standard library only, so that the rules may use them.
"""

from enum import StrEnum


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


class OutcomeCode(StrEnum):
    """Why a command was rejected or ignored."""

    ATTEMPT_NOT_FOUND = "attempt_not_found"
    EXAM_NOT_FOUND = "exam_not_found"
    LEARNER_NOT_FOUND = "learner_not_found"
    ATTEMPT_EXISTS = "attempt_exists"
    ILLEGAL_TRANSITION = "illegal_transition"
    UNKNOWN_STATUS = "unknown_status"
    LATE_TIMEOUT = "late_timeout"


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
    """What an update-status command wants when the learner has no attempt."""

    REJECT = "reject"
    IGNORE = "ignore"
