"""The policy of a proctoring provider, and the presets (docs/rules.md, "Policies")."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from events.vocabulary import Status


class TimeOuts(StrEnum):
    """When a request for `timed_out` stays `timed_out`. Otherwise it becomes `submitted`."""

    ALWAYS = "true"
    NEVER = "false"
    FROM_CREATED = "from_created"  # only while the attempt is still `created`


class RepeatStatus(StrEnum):
    """How a request for the attempt's current status is treated."""

    IGNORE = "ignore"  # outcome `unchanged`, nothing owed
    REAPPLY = "reapply"  # outcome `applied`, with effects owed anew


class CreditDeclined(StrEnum):
    """The word that the credit service is told for a declined attempt."""

    FAILED = "failed"
    DECLINED = "declined"


class ReenterRunning(StrEnum):
    """What becomes of a request that would take a running attempt back to a status before the start."""

    ITSELF = "itself"  # the attempt goes back
    SUBMITTED = "submitted"  # the learner has left a running exam, so the attempt is submitted


class ErrorAfterCompletion(StrEnum):
    """Whether a completed attempt may become `error`."""

    ILLEGAL = "illegal"
    LEGAL = "legal"


class TimedOutBeforeStart(StrEnum):
    """What becomes of a request for `timed_out` before the learner has started."""

    AS_POLICY = "as_policy"  # what `allow_timed_out_state` says
    TIMED_OUT = "timed_out"  # it stays `timed_out`, because there is nothing to submit


CREDIT_OF: Mapping[Status, str] = {
    Status.VERIFIED: "satisfied",
    Status.SUBMITTED: "submitted",
    Status.DECLINED: "failed",  # unless the policy's `credit_declined` says otherwise
    Status.REJECTED: "failed",
    Status.ERROR: "failed",
    Status.NOT_REVIEWED: "failed",
}
"""The word that the credit service is told for each status. A status that is not listed owes no credit."""

MAIL_STATUSES = frozenset({Status.SUBMITTED, Status.VERIFIED, Status.REJECTED})
"""The statuses that may be mailed. Each has its templates in `worker/lms/templates`."""

COURSE_ID = "{course_id}"
"""The placeholder in `MailSettings.course_url`."""


@dataclass(frozen=True, slots=True)
class MailSettings:
    """What a provider's mails can tell a learner. A mail leaves out what is None.

    `review_days` is the number of days in which a review is done. `contact` is text that says whom to ask, such as
    an address. `contact_url` is a page for questions. `course_url` is the pattern of a course's page.

    Example:
        >>> settings = MailSettings(course_url="https://lms.example.org/courses/{course_id}/home")
        >>> settings.course_link("course-v1:edX+Demo")
        'https://lms.example.org/courses/course-v1%3AedX%2BDemo/home'
        >>> print(MailSettings().course_link("course-v1:edX+Demo"))
        None
    """

    review_days: int | None = None
    contact: str | None = None
    contact_url: str | None = None
    course_url: str | None = None

    def course_link(self, course_id: str) -> str | None:
        """Return the URL of a course's page, or None when no pattern is set. The id is percent-encoded."""
        if self.course_url is None:
            return None
        return self.course_url.replace(COURSE_ID, quote(course_id, safe=""))


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of one provider. The defaults are the `provider` preset."""

    allow_timed_out_state: TimeOuts = TimeOuts.FROM_CREATED
    repeat_status: RepeatStatus = RepeatStatus.IGNORE
    cascade_on: frozenset[Status] = frozenset({Status.DECLINED, Status.REJECTED})
    credit_on: frozenset[Status] = frozenset(CREDIT_OF)
    email_on: frozenset[Status] = MAIL_STATUSES
    protect_verdicts: bool = False
    cascade_from_practice: bool = True
    credit_declined: CreditDeclined = CreditDeclined.FAILED
    reenter_running: ReenterRunning = ReenterRunning.ITSELF
    error_after_completion: ErrorAfterCompletion = ErrorAfterCompletion.ILLEGAL
    timed_out_before_start: TimedOutBeforeStart = TimedOutBeforeStart.AS_POLICY
    mail: MailSettings = MailSettings()

    def credit_of(self, status: Status) -> str | None:
        """Return the word that the credit service is told for a status, or None when no credit is owed."""
        if status not in self.credit_on:
            return None
        return self.credit_declined.value if status is Status.DECLINED else CREDIT_OF[status]


PRESETS: Mapping[str, Policy] = {
    "provider": Policy(),
    "platform": Policy(allow_timed_out_state=TimeOuts.NEVER, repeat_status=RepeatStatus.REAPPLY),
    "edx-proctoring-6": Policy(
        allow_timed_out_state=TimeOuts.NEVER,
        repeat_status=RepeatStatus.REAPPLY,
        cascade_on=frozenset({Status.DECLINED}),
        credit_on=frozenset(CREDIT_OF) - {Status.NOT_REVIEWED},
        cascade_from_practice=False,
        credit_declined=CreditDeclined.DECLINED,
        reenter_running=ReenterRunning.SUBMITTED,
        error_after_completion=ErrorAfterCompletion.LEGAL,
    ),
}
