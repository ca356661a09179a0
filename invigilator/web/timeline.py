"""`GET /v1/timeline`: everything that happened to one learner."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from sqlalchemy import Engine

from db import timeline
from db.timeline import Position
from invigilator.web.access import Access
from invigilator.web.documents import Timeline
from invigilator.web.problems import invalid_query
from invigilator.web.reading import DEFAULT_PAGE, Id, Limit, reading, reading_router
from worker.kinds import EffectKind

MAX_CURSOR = 1_000  # characters


def routes(engine: Engine, access: Access) -> APIRouter:
    """Return the route of timelines."""
    router = reading_router(access)

    @router.get("/v1/timeline", response_model=Timeline)
    def of_learner(
        user_id: Id,
        limit: Limit = DEFAULT_PAGE,
        cursor: Annotated[str | None, Query(max_length=MAX_CURSOR)] = None,
    ) -> Any:
        """What happened to a learner, in the order in which it was handled. A page is empty for nobody's id."""
        after = None if cursor is None else _position(cursor)
        with reading(engine) as connection:
            found = timeline.read(
                connection, user_id, mail_kind=EffectKind.SEND_STATUS_EMAIL, after=after, limit=limit + 1
            )
        page = found[:limit]
        return {
            "entries": [one.document() for one in page],
            "next": page[-1].position.cursor() if len(found) > limit else None,
        }

    return router


def _position(cursor: str) -> Position:
    try:
        return Position.of(cursor)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise invalid_query("cursor: must be the `next` of an earlier page") from None
