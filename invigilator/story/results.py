"""Says in plain words how an attempt stands."""

from collections.abc import Mapping

from db.story import AttemptSummary
from events.vocabulary import Status
from invigilator.story.sentences import moment

_NO_VERDICT = "There is no verdict."
STANDING: Mapping[str, str] = {
    Status.ELIGIBLE: "The learner may take the exam, and has not begun.",
    Status.CREATED: "The attempt was created. The learner has not started the exam.",
    Status.DOWNLOAD_SOFTWARE_CLICKED: (
        "The learner has asked for the proctoring software, and has not started the exam."
    ),
    Status.READY_TO_START: "The learner is ready to start the exam.",
    Status.STARTED: "The learner has started the exam, and has not submitted it.",
    Status.READY_TO_SUBMIT: "The learner is ready to submit the exam, and has not submitted it.",
    Status.DECLINED: "Proctoring was declined.",
    Status.TIMED_OUT: f"The time for the exam ran out. {_NO_VERDICT}",
    Status.SUBMITTED: f"The learner submitted the exam. {_NO_VERDICT}",
    Status.SECOND_REVIEW_REQUIRED: f"A second review is needed. {_NO_VERDICT}",
    Status.VERIFIED: "The verdict is: verified.",
    Status.REJECTED: "The verdict is: rejected.",
    Status.NOT_REVIEWED: f"Nobody reviewed the attempt. {_NO_VERDICT}",
    Status.ERROR: f"The attempt ended with an error. {_NO_VERDICT}",
}
"""What each status says of an attempt."""


def result(attempt: AttemptSummary) -> str:
    """Return how an attempt stands, since when, and whether something that follows from it is open.

    Example:
        >>> from datetime import UTC, datetime
        >>> at = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
        >>> result(AttemptSummary("a1", "7", "Mechanics", "phys", "verified", at, at, None, at, 0, 1, 0))
        'The verdict is: verified. It has been so since 2026-03-01 09:30:00 UTC. Of its follow-ups 1 has failed.'
    """
    standing = STANDING.get(attempt.status, f"Its status is {attempt.status}.")
    since = "" if attempt.since is None else f" It has been so since {moment(attempt.since)}."
    removed = (
        "" if attempt.removed_at is None else f" The attempt was removed at {moment(attempt.removed_at)}."
    )
    return f"{standing}{since}{removed} {_follow_ups(attempt)}"


def _follow_ups(attempt: AttemptSummary) -> str:
    some = [
        _counted(attempt.owed, "is still owed", "are still owed"),
        _counted(attempt.failed, "has failed", "have failed"),
        _counted(attempt.cancelled, "was cancelled", "were cancelled"),
    ]
    told = [words for words in some if words]
    return f"Of its follow-ups {', '.join(told)}." if told else "No follow-up of it is open."


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}" if number else ""
