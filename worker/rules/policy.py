"""The policy settings of a proctoring provider and the two presets (docs/rules.md, "Policies")."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any
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


CREDIT_OF: Mapping[Status, str] = {
    Status.VERIFIED: "satisfied",
    Status.SUBMITTED: "submitted",
    Status.DECLINED: "failed",
    Status.REJECTED: "failed",
    Status.ERROR: "failed",
    Status.NOT_REVIEWED: "failed",
}
"""The word that the credit service is told for each status. A status that is not listed owes no credit."""

MAIL_STATUSES = frozenset({Status.SUBMITTED, Status.VERIFIED, Status.REJECTED})
"""The statuses that have a mail template."""


MAX_REVIEW_DAYS = 365
_URL = re.compile(r"https?://[^\s<>\"\x00-\x20\x7f]+")


class PolicyError(ValueError):
    """A policy setting is unknown or has a value that is not allowed.

    `key` is the name of the setting. `allowed` says in words which values it may have.
    """

    def __init__(self, key: str, allowed: str) -> None:
        super().__init__(f"{key}: {allowed}")
        self.key = key
        self.allowed = allowed


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
    """The policy settings of one provider. The defaults are the `provider` preset."""

    allow_timed_out_state: TimeOuts = TimeOuts.FROM_CREATED
    repeat_status: RepeatStatus = RepeatStatus.IGNORE
    cascade_on: frozenset[Status] = frozenset({Status.DECLINED, Status.REJECTED})
    credit_on: frozenset[Status] = frozenset(CREDIT_OF)
    email_on: frozenset[Status] = MAIL_STATUSES
    protect_verdicts: bool = False
    mail: MailSettings = MailSettings()


PRESETS: Mapping[str, Policy] = {
    "provider": Policy(),
    "platform": Policy(allow_timed_out_state=TimeOuts.NEVER, repeat_status=RepeatStatus.REAPPLY),
}


def policy_from(settings: Mapping[str, Any], base: Policy) -> Policy:
    """Build a policy from a table of the policies file (docs/rules.md, "Policies").

    Parameters:
        settings: setting → value. The key `preset` names the preset that the other settings override.
        base: the policy that the settings override when no preset is named.

    Raises:
        PolicyError: a setting is unknown, or its value is not allowed.
    """
    chosen = dict(settings)
    if "preset" in chosen:
        base = _preset(chosen.pop("preset"))
    changes = {}
    for key, value in chosen.items():
        if key not in _READERS:
            raise PolicyError(key, f"is no setting; the settings are {_words(['preset', *_READERS])}")
        changes[key] = _READERS[key](key, value)
    mail = {field.name: changes.pop(field.name) for field in fields(MailSettings) if field.name in changes}
    return replace(base, **changes, mail=replace(base.mail, **mail))


def _preset(name: Any) -> Policy:
    if not isinstance(name, str) or name not in PRESETS:
        raise PolicyError("preset", f"must be one of {_words(PRESETS)}")
    return PRESETS[name]


def _time_outs(key: str, value: Any) -> TimeOuts:
    if isinstance(value, bool):
        return TimeOuts.ALWAYS if value else TimeOuts.NEVER
    if value != TimeOuts.FROM_CREATED:
        raise PolicyError(key, 'must be true, false or "from_created"')
    return TimeOuts.FROM_CREATED


def _repeat_status(key: str, value: Any) -> RepeatStatus:
    if value not in list(RepeatStatus):
        raise PolicyError(key, f"must be one of {_words(RepeatStatus)}")
    return RepeatStatus(value)


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(key, "must be true or false")
    return value


def _days(key: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MAX_REVIEW_DAYS:
        raise PolicyError(key, f"must be a whole number of days from 1 to {MAX_REVIEW_DAYS}")
    return value


def _one_line(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise PolicyError(key, "must be a text of one line")
    return value


def _url(key: str, value: Any) -> str:
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise PolicyError(key, "must be an address that starts with https:// or http://, without spaces")
    return value


def _course_url(key: str, value: Any) -> str:
    if not isinstance(value, str) or COURSE_ID not in value:
        raise PolicyError(key, f"must be an address with {COURSE_ID} in it")
    return _url(key, value)


def _statuses(allowed: frozenset[Status]) -> Callable[[str, Any], frozenset[Status]]:
    def read(key: str, value: Any) -> frozenset[Status]:
        if not isinstance(value, list) or any(name not in list(allowed) for name in value):
            raise PolicyError(key, f"must be a list of statuses out of {_words(sorted(allowed))}")
        return frozenset(Status(name) for name in value)

    return read


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "allow_timed_out_state": _time_outs,
    "repeat_status": _repeat_status,
    "cascade_on": _statuses(frozenset(Status)),
    "credit_on": _statuses(frozenset(CREDIT_OF)),
    "email_on": _statuses(MAIL_STATUSES),
    "protect_verdicts": _flag,
    "review_days": _days,
    "contact": _one_line,
    "contact_url": _url,
    "course_url": _course_url,
}


def _words(names: Any) -> str:
    return ", ".join(str(name) for name in names)
