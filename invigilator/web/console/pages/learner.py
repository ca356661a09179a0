"""One learner's whole story."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response

from db import timeline
from db.timeline import Position
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading
from worker.kinds import EffectKind

ENTRIES = 200
"""Of a page. Most learners have fewer."""


def shown(site: Site, visit: Visit) -> Response:
    """Everything that happened to a learner, oldest first."""
    user_id = visit.asked("user_id")
    if user_id is None:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Name the learner.")
    after = _position(visit)
    with reading(site.engine) as connection:
        found = timeline.read(
            connection, user_id, mail_kind=EffectKind.SEND_STATUS_EMAIL, after=after, limit=ENTRIES + 1
        )
    if not found and after is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "Nothing is known of a learner with this id.")
    entries = found[:ENTRIES]
    return site.page(
        visit,
        "learner.html",
        user_id=user_id,
        entries=[one.document() for one in entries],
        is_first=after is None,
        next=entries[-1].position.cursor() if len(found) > ENTRIES else None,
    )


def _position(visit: Visit) -> Position | None:
    cursor = visit.asked("after")
    try:
        return None if cursor is None else Position.of(cursor)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "after: must be the address of a next page.") from None
