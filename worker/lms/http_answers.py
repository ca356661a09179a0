"""What an answer of the LMS means: done, worth another try, or refused, and for which reason."""

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

TOKEN_SETTING = "INVIGILATOR_LMS_TOKEN"  # noqa: S105 - its name
CREDENTIALS_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
TRANSIENT_STATUSES = frozenset(
    {
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)  # and every 5xx

_REASON = re.compile(r"[A-Za-z0-9._:/#-]{1,64}")
_NO_REASON = "about:blank"  # what a problem document (RFC 9457) has for a type where it has none


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came; of a long body the beginning."""

    status: int
    retry_after: str | None
    body: bytes


def raise_unless_done(answer: Answer, call: str, unsaid: Collection[str] = ()) -> None:
    """Do nothing when the answer says that the call was carried out.

    Parameters:
        answer: what the LMS said.
        call: method and path, for the message.
        unsaid: what the call carried and no message may repeat.

    Raises:
        Misconfigured: the LMS does not accept our credentials.
        Unavailable: another try may help.
        Refused: it will not.
    """
    if 200 <= answer.status <= 299:
        return
    why = reason(answer.body)
    shown = f" ({why})" if why is not None and why not in unsaid else ""
    raise _failure(answer, f"LMS answered {answer.status} to {call}{shown}")


def _failure(answer: Answer, message: str) -> ServiceError:
    if answer.status in CREDENTIALS_REFUSED:
        return Misconfigured(message, setting=TOKEN_SETTING)
    if answer.status in TRANSIENT_STATUSES or 500 <= answer.status <= 599:
        return Unavailable(message, retry_after_s=retry_after_s(answer.retry_after, datetime.now(UTC)))
    return Refused(message)


def reason(body: bytes) -> str | None:
    """The word with which a JSON body says why a call was refused, or None. Nothing else of it is kept.

    That is the first of its members `code`, `error`, `error.code` and `type` that is short and has nothing but
    letters, digits and some punctuation.
    """
    usable = (value for value in _reasons(_parsed(body)) if isinstance(value, str))
    return next((value for value in usable if _REASON.fullmatch(value) and value != _NO_REASON), None)


def _reasons(document: dict[str, Any]) -> Iterator[object]:
    error = document.get("error")
    yield document.get("code")
    yield error
    yield error.get("code") if isinstance(error, dict) else None
    yield document.get("type")


def course_name(body: bytes) -> str | None:
    """The name in a credit state, or None."""
    name = _parsed(body).get("course_name")
    if not isinstance(name, str) or not name.strip():
        return None
    # JSON can spell half a surrogate pair, which no mail can carry.
    return name.encode("utf-8", "replace").decode()


def _parsed(body: bytes) -> dict[str, Any]:
    """The members of a JSON object; none for anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from a `Retry-After` header: a number or an HTTP date. None when it is neither.

    `now` is aware. What lies in the past is 0.
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
    if date.tzinfo is None:  # "-0000": a time in UTC that does not say where it was written
        date = date.replace(tzinfo=UTC)
    return (date - now).total_seconds()
