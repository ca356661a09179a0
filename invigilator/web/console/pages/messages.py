"""The quarantine."""

from base64 import b64encode
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db import lookups
from invigilator.web.console.site import PAGE, Site, Visit
from invigilator.web.reading import reading

MAX_MESSAGE = 2**63 - 1
SHOWN_BYTES = 64 * 1024


def listed(site: Site, visit: Visit) -> Response:
    """The messages in quarantine, oldest first."""
    after = number_of(visit, "after") or 0
    with reading(site.engine) as connection:
        found = lookups.quarantine_page(connection, after=after, limit=PAGE + 1)
        count = lookups.count_quarantined(connection)
    messages = found[:PAGE]
    return site.page(
        visit,
        "quarantine.html",
        messages=messages,
        count=count,
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


def number_of(visit: Visit, name: str) -> int | None:
    """Return the number of a message in the address. None when there is none.

    Raises:
        HTTPException: it is no number.
    """
    text = visit.asked(name)
    if text is None:
        return None
    if (
        not (text.isascii() and text.isdecimal())
        or len(text) > len(str(MAX_MESSAGE))
        or int(text) > MAX_MESSAGE
    ):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"{name}: is no number of a message.")
    return int(text)


def _readable(body: bytes) -> tuple[str, str]:
    try:
        return body.decode("utf-8"), "UTF-8"
    except UnicodeDecodeError:
        return b64encode(body).decode("ascii"), "Base64"
