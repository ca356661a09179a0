"""Reads the settings of a policy from a table of the policies file, and refuses what is not allowed."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from events.vocabulary import Status
from worker.rules.policy import (
    COURSE_ID,
    CREDIT_OF,
    MAIL_STATUSES,
    PRESETS,
    CreditDeclined,
    ErrorAfterCompletion,
    MailSettings,
    Policy,
    ReenterRunning,
    RepeatStatus,
    TimedOutBeforeStart,
    TimeOuts,
)

MAX_REVIEW_DAYS = 365
MAX_CONTACT_CHARS = 200
MAX_URL_CHARS = 2000

_NOT_IN_A_URL = re.compile(r"[\s\x00-\x1f\x7f\"<>\\^`{|}]")


class PolicyError(ValueError):
    """A policy setting is unknown or has a value that is not allowed.

    `key` is the name of the setting. `allowed` says in words which values it may have.
    """

    def __init__(self, key: str, allowed: str) -> None:
        super().__init__(f"{key}: {allowed}")
        self.key = key
        self.allowed = allowed


def policy_from(settings: Mapping[str, Any], base: Policy) -> Policy:
    """Build a policy from a table of the policies file (docs/rules.md, "Policies").

    Parameters:
        settings: setting → value. The key `preset` names the preset that the other settings override.
        base: the policy that the settings override when no preset is named. No preset has settings of the mails,
            so those of the base hold in any case.

    Raises:
        PolicyError: a setting is unknown, or its value is not allowed.

    Example:
        >>> policy = policy_from({"preset": "edx-proctoring-6", "review_days": 5}, Policy())
        >>> print(policy.credit_declined, policy.mail.review_days)
        declined 5
    """
    values = dict(settings)
    if "preset" in values:
        base = replace(_preset(values.pop("preset")), mail=base.mail)
    values = {key: _read(key, value) for key, value in values.items()}
    mail = {key: values.pop(key) for key in _MAIL_SETTINGS & values.keys()}
    return replace(base, **values, mail=replace(base.mail, **mail))


_MAIL_SETTINGS = frozenset(field.name for field in fields(MailSettings))


def _preset(name: Any) -> Policy:
    if not isinstance(name, str) or name not in PRESETS:
        raise PolicyError("preset", f"must be one of {_words(PRESETS)}")
    return PRESETS[name]


def _read(key: str, value: Any) -> Any:
    if key not in _READERS:
        raise PolicyError(key, f"is no setting; the settings are {_words(['preset', *_READERS])}")
    return _READERS[key](key, value)


# --- one reader for each form of a value -----------------------------------------------------------------


def _time_outs(key: str, value: Any) -> TimeOuts:
    if isinstance(value, bool):
        return TimeOuts.ALWAYS if value else TimeOuts.NEVER
    if value != TimeOuts.FROM_CREATED:
        raise PolicyError(key, 'must be true, false or "from_created"')
    return TimeOuts.FROM_CREATED


def _one_of(choices: type[StrEnum]) -> Callable[[str, Any], StrEnum]:
    def read(key: str, value: Any) -> StrEnum:
        if value not in list(choices):
            raise PolicyError(key, f"must be one of {_words(choices)}")
        return choices(value)

    return read


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise PolicyError(key, "must be true or false")
    return value


def _statuses(allowed: frozenset[Status]) -> Callable[[str, Any], frozenset[Status]]:
    def read(key: str, value: Any) -> frozenset[Status]:
        if not isinstance(value, list) or any(name not in list(allowed) for name in value):
            raise PolicyError(key, f"must be a list of statuses out of {_words(sorted(allowed))}")
        return frozenset(Status(name) for name in value)

    return read


def _review_days(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_REVIEW_DAYS:
        raise PolicyError(key, f"must be a whole number of days from 1 to {MAX_REVIEW_DAYS}")
    return value


def _contact(key: str, value: Any) -> str:
    # Format characters (Cf) are allowed: text that runs from right to left needs them.
    if not isinstance(value, str) or not value.strip() or any(map(_breaks_a_line, value)):
        raise PolicyError(key, "must be one line of text, such as an address")
    if len(value) > MAX_CONTACT_CHARS:
        raise PolicyError(key, f"must be {MAX_CONTACT_CHARS} characters at most")
    return value


def _breaks_a_line(char: str) -> bool:
    """Return whether a character ends a line, is a control character, or cannot be encoded."""
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def _url(key: str, value: Any) -> str:
    if not _is_web_address(value):
        raise PolicyError(key, "must be an http:// or https:// URL")
    return str(value)


def _course_url(key: str, value: Any) -> str:
    if not isinstance(value, str) or not _is_web_address(value.replace(COURSE_ID, "id")):
        raise PolicyError(
            key, f"must be an http:// or https:// URL, with {COURSE_ID} where the course's id goes"
        )
    return value


def _is_web_address(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > MAX_URL_CHARS or _NOT_IN_A_URL.search(value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # such as an IPv6 address that is none
        return False


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "allow_timed_out_state": _time_outs,
    "repeat_status": _one_of(RepeatStatus),
    "cascade_on": _statuses(frozenset(Status)),
    "credit_on": _statuses(frozenset(CREDIT_OF)),
    "email_on": _statuses(MAIL_STATUSES),
    "protect_verdicts": _flag,
    "cascade_from_practice": _flag,
    "credit_declined": _one_of(CreditDeclined),
    "reenter_running": _one_of(ReenterRunning),
    "error_after_completion": _one_of(ErrorAfterCompletion),
    "timed_out_before_start": _one_of(TimedOutBeforeStart),
    "review_days": _review_days,
    "contact": _contact,
    "contact_url": _url,
    "course_url": _course_url,
}


def _words(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names)
