"""One learner's whole story."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from io import StringIO
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from db import story as stories
from db import timeline
from db.timeline import Position
from invigilator.story import page
from invigilator.story import reading as whole
from invigilator.story.results import result
from invigilator.story.sentences import Reference, Teller
from invigilator.web.console.rendering import address
from invigilator.web.console.site import Site, Visit
from invigilator.web.reading import reading
from worker.kinds import EffectKind

ENTRIES = 200
"""Of a page. Most learners have fewer."""

_PLACES: Mapping[str, Callable[[Reference], str]] = {
    "act": lambda one: address("audit", act_id=one.id),
    "attempt": lambda one: address("attempt", code=one.id),
    "effect": lambda one: address("effect", id=one.id),
    "message": lambda one: address("quarantined", id=one.id),
}


def place_of(reference: Reference) -> str | None:
    """Return the address of what a sentence tells. None where there is no page of it."""
    if reference.kind == "command":
        is_known = reference.source is not None
        return address("command", source=reference.source, id=reference.id) if is_known else None
    place = _PLACES.get(reference.kind)
    return None if place is None else place(reference)


def shown(site: Site, visit: Visit) -> Response:
    """Everything that happened to a learner, oldest first."""
    user_id, after = _learner(visit), _position(visit)
    with reading(site.engine) as connection:
        heading = stories.heading(connection, user_id)
        found = timeline.read(
            connection, user_id, mail_kind=EffectKind.SEND_STATUS_EMAIL, after=after, limit=ENTRIES + 1
        )
    if not found and after is None and not heading.is_described:
        _refuse()
    entries = found[:ENTRIES]
    return site.page(
        visit,
        "learner.html",
        heading=heading,
        results=[(one, result(one)) for one in heading.attempts],
        entries=list(map(Teller(heading.exam_names()).tell, entries)),
        place_of=place_of,
        is_first=after is None,
        next=entries[-1].position.cursor() if len(found) > ENTRIES else None,
    )


def printed(site: Site, visit: Visit) -> Response:
    """The whole story as a page for paper."""
    user_id, text = _learner(visit), StringIO()
    with reading(site.engine) as connection:
        story = whole.read(connection, user_id)
        if story is None:
            _refuse()
        page.write(story.heading, story.told(), datetime.now(UTC), text)
    return HTMLResponse(text.getvalue(), headers={"Content-Security-Policy": page.policy(user_id)})


def _learner(visit: Visit) -> str:
    user_id = visit.asked("user_id")
    if user_id is None:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Name the learner.")
    return user_id


def _refuse() -> NoReturn:
    raise HTTPException(HTTPStatus.NOT_FOUND, "Nothing is known of a learner with this id.")


def _position(visit: Visit) -> Position | None:
    cursor = visit.asked("after")
    try:
        return None if cursor is None else Position.of(cursor)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "after: must be the address of a next page.") from None
