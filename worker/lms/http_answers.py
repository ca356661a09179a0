"""Interprets the LMS's HTTP answers: done, worth a retry, or refused, and the reason given."""

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from worker.errors import Misconfigured, Refused, ServiceError, Unavailable

PROXY_SETTING = "INVIGILATOR_LMS_PROXY"
TRANSIENT_STATUSES = frozenset(
    {
        # A right that is missing for now: a person grants it within RETRY_FOR_S (docs/operations.md).
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)  # and every 5xx

_REASON = re.compile(r"[A-Za-z0-9._:/#-]{1,64}")
_SECRET = 4
"""Shorter texts, such as the path `/`, stand in many words by chance."""
_NO_REASON = "about:blank"  # the `type` of a problem document (RFC 9457) that gives no type


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. `body` holds only the beginning of a long body."""

    status: int
    retry_after: str | None
    body: bytes


def raise_unless_done(
    answer: Answer, call: str, credentials: str, secrets: Collection[str] = (), username: str | None = None
) -> None:
    """Return when the answer says that the call was carried out (a 2xx status); raise otherwise.

    Parameters:
        answer: the LMS's answer.
        call: method and path, for the message.
        credentials: the settings to check when the LMS does not accept our credentials.
        secrets: what the message must not tell any part of, such as a token.
        username: that of the learner, which the message must not repeat.

    Raises:
        Misconfigured: the LMS does not accept our credentials.
        Unavailable: a retry may help.
        Refused: a retry will not help.
    """
    if 200 <= answer.status <= 299:
        return
    why = reason(answer.body, secrets)
    shown = f" ({why})" if why is not None and why != username else ""
    message = f"LMS answered {answer.status} to {call}{shown}"
    raise _failure(answer, message, why if shown else None, credentials)


def _failure(answer: Answer, message: str, why: str | None, credentials: str) -> ServiceError:
    status = answer.status
    if status == HTTPStatus.UNAUTHORIZED:
        return Misconfigured(message, setting=credentials, status=status, reason=why)
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return Misconfigured(message, setting=PROXY_SETTING, status=status, reason=why)
    if is_transient(status):
        wait_s = retry_after_s(answer.retry_after, datetime.now(UTC))
        return Unavailable(message, retry_after_s=wait_s, status=status, reason=why)
    return Refused(message, status=status, reason=why)


def is_transient(status: int) -> bool:
    """Return whether a status says that the same call may be carried out later."""
    return status in TRANSIENT_STATUSES or 500 <= status <= 599


def reason(body: bytes, secrets: Collection[str] = ()) -> str | None:
    """Return the word with which a JSON body says why a call was refused, or None.

    The word is the first of the members `code`, `error`, `error.code` and `type` that is a short string of letters,
    digits and some punctuation. Nothing else of the body is kept, because it may hold personal data.

    Parameters:
        body: of the answer.
        secrets: of the call, which an answer may repeat. No word is kept that is a part of one, or that holds one.
    """
    usable = (value for value in _reasons(_parsed(body)) if isinstance(value, str))
    return next((value for value in usable if _is_reason(value) and not _tells(value, secrets)), None)


def _is_reason(value: str) -> bool:
    return _REASON.fullmatch(value) is not None and value != _NO_REASON


def _tells(word: str, secrets: Collection[str]) -> bool:
    return any(word in secret or (len(secret) >= _SECRET and secret in word) for secret in secrets)


def _reasons(document: dict[str, Any]) -> Iterator[object]:
    error = document.get("error")
    yield document.get("code")
    yield error
    yield error.get("code") if isinstance(error, dict) else None
    yield document.get("type")


def course_name(body: bytes) -> str | None:
    """Return the course's name in the body of a credit state, or None when it holds none."""
    name = _parsed(body).get("course_name")
    if not isinstance(name, str) or not name.strip():
        return None
    # JSON can contain a lone surrogate, which a mail cannot encode.
    return name.encode("utf-8", "replace").decode()


def _parsed(body: bytes) -> dict[str, Any]:
    """Return the members of a JSON object, or no members when the body is anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return the seconds to wait that a `Retry-After` header asks for, or None when it is absent or invalid.

    Parameters:
        value: the header: a number of seconds or an HTTP date. A time in the past gives 0.
        now: an aware datetime.
    """
    if value is None:
        return None
    is_number = re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]*)?\s*", value)
    seconds = float(value) if is_number else _seconds_until(value, now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(http_date: str, now: datetime) -> float:
    try:
        date = parsedate_to_datetime(http_date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return math.nan
    if date.tzinfo is None:  # "-0000" means UTC without a statement about the local time zone (RFC 5322)
        date = date.replace(tzinfo=UTC)
    return (date - now).total_seconds()
