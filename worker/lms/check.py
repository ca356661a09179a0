"""Tries each call that effects make at a real LMS, with a learner that is there for nothing else."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from uuid import uuid4

from events.fields import MAX_ID
from worker.errors import ConfigurationError, Misconfigured, Refused, ServiceError, Unavailable
from worker.findings import Finding, Verdict
from worker.lms.connect import LOG, connect_lms, credentials
from worker.lms.credentials import Anonymous
from worker.lms.http import HttpLms
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Origin
from worker.settings import Settings

MARK = "invigilator-check"
"""The learner, the course and the content of the calls, where nobody names others."""

LONGEST = Origin(*("\U0001f600" * MAX_ID,) * 3)
"""Ids that no others exceed in a header, where each of these characters takes twelve."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The learner and the exam of the calls. An LMS may refuse those that it does not know."""

    user_id: str = MARK
    username: str = MARK
    course_id: str = MARK
    content_id: str = MARK


Call = Callable[[HttpLms, Deadline], str | None]


def check(settings: Settings, subject: Subject) -> Iterator[Finding]:
    """Make the calls one after the other, and yield what is found. After a call without an answer, stop.

    What the LMS has stored for the subject is gone afterwards. Whether it drops a repeated or a late call cannot be
    seen from outside: only that it answers it as done.

    Parameters:
        settings: where the LMS is, who calls, and which services it has.
        subject: whom and what the calls are about.

    Raises:
        ConfigurationError: no LMS is configured, or a setting cannot work.
    """
    if settings.lms_url == LOG:
        raise ConfigurationError(f"INVIGILATOR_LMS_URL is {LOG}: set it to the address of the LMS to check")
    with closing(connect_lms(settings, credentials(settings))) as lms:
        for name, call in _calls(settings, subject):
            try:
                detail = call(lms, Deadline.after(settings.call_timeout_s))
            except ServiceError as error:
                yield Finding(name, Verdict.PROBLEM, _advice(error))
                if isinstance(error, Unavailable):
                    return
            else:
                yield Finding(name, Verdict.OK, detail or "")
        yield _with_longest_headers(lms, subject, Deadline.after(settings.call_timeout_s))
    yield _without_credentials(settings, subject)


def _calls(settings: Settings, subject: Subject) -> Iterator[tuple[str, Call]]:
    if settings.credit == "on":
        yield from _credit_calls(subject)
    yield "ask for the course's name", _course_name(subject)
    if settings.instructor == "on":
        reset = _reset(subject, CallKey(uuid4(), _microseconds()))
        yield "reset the learner's work", reset
        yield "the same reset again", reset


def _credit_calls(subject: Subject) -> Iterator[tuple[str, Call]]:
    now = _microseconds()
    late, current = CallKey(uuid4(), now), CallKey(uuid4(), now + 1)
    set_status = _set(subject, "submitted", current)
    yield "set a credit status", set_status
    yield "the same call again", set_status
    yield "an older call, which comes late", _set(subject, "failed", late)
    yield "remove the credit status", _remove(subject, CallKey(uuid4(), now + 2))
    yield "remove what is not there", _remove(subject, CallKey(uuid4(), now + 3))


def _set(subject: Subject, status: str, key: CallKey) -> Call:
    return lambda lms, deadline: lms.set_status(_requirement(subject), status, key, deadline)


def _remove(subject: Subject, key: CallKey) -> Call:
    return lambda lms, deadline: lms.remove(_requirement(subject), key, deadline)


def _reset(subject: Subject, key: CallKey) -> Call:
    return lambda lms, deadline: lms.delete_student_attempt(
        subject.username, subject.course_id, subject.content_id, None, key, deadline
    )


def _course_name(subject: Subject) -> Call:
    def ask(lms: HttpLms, deadline: Deadline) -> str:
        name = lms.course_name(subject.user_id, subject.course_id, None, deadline)
        return f"it is {name!r}" if name else "there is none: mails take the name that course.upsert.v1 told"

    return ask


def _with_longest_headers(lms: HttpLms, subject: Subject, deadline: Deadline) -> Finding:
    name = "a call with the longest headers"
    try:
        lms.course_name(subject.user_id, subject.course_id, LONGEST, deadline)
    except ServiceError as error:
        advice = (
            "if it answers calls with short ones, have it accept 8 KiB for each header and 16 KiB for all"
        )
        return Finding(name, Verdict.NOTE, f"{error}: {advice}")
    return Finding(name, Verdict.OK)


def _without_credentials(settings: Settings, subject: Subject) -> Finding:
    name = "a call without our credentials"
    if isinstance(credentials(settings), Anonymous) and not (settings.lms_cert or settings.lms_headers):
        return Finding(
            name, Verdict.NOTE, "none are configured: whoever reaches the LMS may make these calls"
        )
    nothing = dict.fromkeys(
        (
            "lms_token",
            "lms_oauth_token_url",
            "lms_oauth_client_id",
            "lms_oauth_client_secret",
            "lms_cert",
            "lms_key",
            "lms_headers",
        )
    )
    try:
        with closing(connect_lms(settings.model_copy(update=nothing), Anonymous())) as stranger:
            _course_name(subject)(stranger, Deadline.after(settings.call_timeout_s))
    except Misconfigured:
        return Finding(name, Verdict.OK, "is refused")
    except Refused as error:
        return Finding(
            name, Verdict.PROBLEM, f"{error}: answer 401, or effects fail for good when a token expires"
        )
    except ServiceError as error:
        return Finding(name, Verdict.NOTE, f"{error}: a 401 would name the setting that is wrong")
    return Finding(name, Verdict.PROBLEM, "is not refused: the LMS must answer 401")


def _advice(error: ServiceError) -> str:
    if isinstance(error, Misconfigured):
        return f"{error}: check {error.setting}"
    if isinstance(error, Refused):
        return f"{error}: an effect would fail; if the LMS does not know the test learner, name one that it knows"
    return str(error)


def _requirement(subject: Subject) -> CreditRequirement:
    return CreditRequirement(subject.user_id, subject.course_id, subject.content_id)


def _microseconds() -> int:
    """Return a sequence number as effects have it: it is higher in a later check."""
    return time.time_ns() // 1000
