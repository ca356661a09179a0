"""What `Client` hands on: attempts, and an error for each reason why a command was not carried out.

An error's `code` is that of the contract. Where a newer Invigilator sends a code that has no class here, the class
above is raised, and its `reason` is that code.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from .errors import InvigilatorError, PublishError
from .vocabulary import OutcomeCode


class Attempt(BaseModel):
    """An attempt, as it was when the answer was made.

    Parameters:
        id: ours, a UUID.
        attempt_code: its code, unique for ever.
        status: one of `events.vocabulary.Status`, or one that a newer Invigilator has.
        version: how many statuses it has had.
        started_at, completed_at: None when it never was.
        removed_at: None while it is live.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    exam_id: str
    user_id: str
    attempt_code: str
    status: str
    taking_as_proctored: bool
    is_sample_attempt: bool
    external_id: str | None
    started_at: datetime | None
    completed_at: datetime | None
    version: int
    removed_at: datetime | None


class CommandRejectedError(InvigilatorError):
    """Invigilator has refused the command, and always will.

    Parameters:
        reason: the code of the outcome, such as `illegal_transition`.
        detail: one line that says why.
        command_id: which command.
        attempt: the learner's attempt at the exam; None without one.
    """

    code = "rejected"

    def __init__(self, reason: str, detail: str | None, command_id: str, attempt: Attempt | None) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.detail = detail
        self.command_id = command_id
        self.attempt = attempt


class AttemptNotFoundError(CommandRejectedError):
    """The learner has no live attempt at the exam."""

    code = OutcomeCode.ATTEMPT_NOT_FOUND


class ExamNotFoundError(CommandRejectedError):
    """There is no such exam."""

    code = OutcomeCode.EXAM_NOT_FOUND


class LearnerNotFoundError(CommandRejectedError):
    """There is no such learner."""

    code = OutcomeCode.LEARNER_NOT_FOUND


class AttemptExistsError(CommandRejectedError):
    """The learner has a live attempt at the exam already."""

    code = OutcomeCode.ATTEMPT_EXISTS


class AttemptCodeTakenError(CommandRejectedError):
    """Another attempt has this code."""

    code = OutcomeCode.ATTEMPT_CODE_TAKEN


class StaleAttemptError(CommandRejectedError):
    """The live attempt is not the one that the command names."""

    code = OutcomeCode.STALE_ATTEMPT


class IllegalTransitionError(CommandRejectedError):
    """The attempt cannot get this status from the one that it has."""

    code = OutcomeCode.ILLEGAL_TRANSITION


class UnknownStatusError(CommandRejectedError):
    """There is no such status."""

    code = OutcomeCode.UNKNOWN_STATUS


class CommandQuarantinedError(CommandRejectedError):
    """The command was not handled. It waits in quarantine for a person."""

    code = "quarantined"


class OutcomePendingError(InvigilatorError):
    """The command has no outcome yet. It will be handled.

    Parameters:
        command_id: sent again with this id, the same command waits for the same outcome.
    """

    code = "outcome_pending"

    def __init__(self, command_id: str) -> None:
        super().__init__("the command has no outcome yet; send it again with the same id to wait for it")
        self.command_id = command_id


class ApiError(InvigilatorError):
    """The HTTP API has refused the call. No command was handled.

    Parameters:
        status: of HTTP.
        reason: the code, such as `method_not_allowed`.
        detail: one line that says what to do.
    """

    code = "api"

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail


class UnauthorizedError(ApiError):
    """The token is missing or not known."""

    code = "unauthorized"


class NotAllowedError(ApiError):
    """The token may not do this."""

    code = "not_allowed"


class RateLimitedError(ApiError):
    """The token has been used too often.

    Parameters:
        retry_after_s: seconds until the next call may succeed; None when the server does not say.
    """

    code = "rate_limited"
    retry_after_s: float | None = None


class UnavailableError(PublishError):
    """The server does not answer, or cannot answer now. Send the command again with the same id."""

    code = "unavailable"


REJECTIONS: Mapping[str, type[CommandRejectedError]] = MappingProxyType(
    {
        error.code: error
        for error in (
            AttemptNotFoundError,
            ExamNotFoundError,
            LearnerNotFoundError,
            AttemptExistsError,
            AttemptCodeTakenError,
            StaleAttemptError,
            IllegalTransitionError,
            UnknownStatusError,
        )
    }
)
"""The error of each code with which a command may be rejected."""

REFUSALS: Mapping[str, type[ApiError]] = MappingProxyType(
    {error.code: error for error in (UnauthorizedError, NotAllowedError, RateLimitedError)}
)
"""The error of each code with which the HTTP API refuses a call, where there is one."""
