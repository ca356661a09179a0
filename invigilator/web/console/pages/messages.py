"""The quarantine."""

from base64 import b64encode
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db import lookups, quarantine_filters
from db.quarantine_filters import Fitting
from events.vocabulary import QuarantineCode
from invigilator.web.console.site import PAGE, Site, Visit
from invigilator.web.reading import reading

MAX_NUMBER = 2**63 - 1  # of PostgreSQL's bigint
SHOWN_BYTES = 64 * 1024


def listed(site: Site, visit: Visit) -> Response:
    """The messages in quarantine that fit the filter of the address, oldest first."""
    visit.only("code", "source", "after")
    wanted = fitting(visit.asked("code"), visit.asked("source"))
    after = visit.asked("after")
    with reading(site.engine) as connection:
        found = quarantine_filters.page(
            connection, wanted, after=number_from("after", after) if after else 0, limit=PAGE + 1
        )
        count, _ = quarantine_filters.count(connection, wanted)
    messages = found[:PAGE]
    return site.page(
        visit,
        "quarantine.html",
        messages=messages,
        count=count,
        wanted=wanted,
        query=wanted.as_json(),
        codes=tuple(QuarantineCode),
        next=messages[-1]["id"] if len(found) > PAGE else None,
    )


def shown(site: Site, visit: Visit) -> Response:
    """One message, whole."""
    message_id = number_of(visit, "id")
    with reading(site.engine) as connection:
        found = lookups.quarantined(connection, message_id) if message_id else None
    if found is None:
        raise HTTPException(
            HTTPStatus.NOT_FOUND,
            "There is no such message. It was replayed or discarded, or had to make room.",
        )
    body, encoding = _readable(bytes(found["body"])[:SHOWN_BYTES])
    return site.page(
        visit,
        "quarantined.html",
        message=found,
        body=body,
        encoding=encoding,
        cut=len(found["body"]) > SHOWN_BYTES,
    )


def fitting(code: str | None, source: str | None) -> Fitting:
    """Return the filter of messages.

    Raises:
        HTTPException: there is no such code.
    """
    if code is not None and code not in list(QuarantineCode):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"code: must be one of {', '.join(QuarantineCode)}.")
    return Fitting(code, source)


def number_of(visit: Visit, name: str) -> int | None:
    """Return a number of the address. None when there is none. Raises what `number_from` raises."""
    text = visit.asked(name)
    return None if text is None else number_from(name, text)


def number_from(name: str, text: str) -> int:
    """Return the number of a message, of a row or of a position.

    Raises:
        HTTPException: it is no number.
    """
    if (
        not (text.isascii() and text.isdecimal())
        or len(text) > len(str(MAX_NUMBER))
        or int(text) > MAX_NUMBER
    ):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name}: must be a number.")
    return int(text)


def _readable(body: bytes) -> tuple[str, str]:
    try:
        return body.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError:
        return b64encode(body).decode("ascii"), "Base64"
