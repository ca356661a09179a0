"""`GET /v1/events`: the event log. No log is kept yet, so the call says that it is off."""

from http import HTTPStatus

from fastapi import APIRouter

from invigilator.web.access import Access
from invigilator.web.problems import ProblemCode, ProblemError
from invigilator.web.reading import reading_router


def routes(access: Access) -> APIRouter:
    """Return the route of the event log."""
    router = reading_router(access)

    @router.get("/v1/events")
    def events() -> None:
        """The event log. It is off."""
        detail = "no event log is kept"
        raise ProblemError(HTTPStatus.NOT_FOUND, ProblemCode.EVENTS_OFF, detail)

    return router
