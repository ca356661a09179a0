"""`GET /v1/events`: the event log, by position."""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from db import event_log
from events.cloudevent import as_object
from events.event_types import check_patterns
from invigilator.web.access import Access
from invigilator.web.documents import EventPage
from invigilator.web.followers import Follower, Followers, Page, Wanted
from invigilator.web.openapi import problems
from invigilator.web.preferences import parameter, wait_s
from invigilator.web.problems import ProblemCode, ProblemError, invalid_query
from invigilator.web.reading import DEFAULT_PAGE, Limit, Reader, reading_router
from worker.subscriptions import API

MAX_POSITION = 2**63 - 1  # of PostgreSQL's bigint
MAX_PATTERNS = 20

Position = Annotated[int | None, Query(ge=0, le=MAX_POSITION)]
Pattern = Annotated[str, Field(max_length=255)]
Patterns = Annotated[list[Pattern], Query(max_length=MAX_PATTERNS)]


def routes(reader: Reader, followers: Followers, access: Access, source: str) -> APIRouter:
    """Return the route of the event log.

    Parameters:
        source: of the events.
    """
    router = reading_router(access)

    @router.get(
        "/v1/events",
        response_model=EventPage,
        response_model_exclude_unset=True,
        responses=problems(HTTPStatus.GONE),
        openapi_extra={"parameters": [parameter("the next events")]},
    )
    async def events(
        request: Request,
        response: Response,
        after: Position = None,
        types: Patterns = [],  # noqa: B006 - FastAPI makes a list for each call
        limit: Limit = DEFAULT_PAGE,
    ) -> Any:
        """Events after a position, oldest first. Without `after` it begins with the oldest that is kept.

        `types` are shell patterns over the whole type, such as `exam.attempt.*`, and may be repeated. `next` is the
        last position that was looked at, also when no event had one of the types. With `Prefer: wait=N` the answer
        waits for an event that is asked for.
        """
        _check(types)
        wanted = Wanted(types, limit)
        page, is_last = await run_in_threadpool(_read, reader, wanted, after)
        seconds = wait_s(request, response)
        if seconds and is_last and not page.events:
            page = await _next(followers, Follower(wanted, page.next), seconds)
        return {"events": [as_object(event, source) for event in page.events], "next": page.next}

    return router


def _check(types: list[str]) -> None:
    try:
        check_patterns(types)
    except ValueError as error:
        raise invalid_query(f"types: {error}") from None


def _read(reader: Reader, wanted: Wanted, after: int | None) -> tuple[Page, bool]:
    """Return what comes after a position, and whether nothing more comes after that."""
    found = reader.ask(partial(event_log.page, subscriber=API, after=after, rows=wanted.rows))
    if not found.is_kept:
        detail = "no event log is kept for the API; add [api] to the file of subscriptions"
        raise ProblemError(HTTPStatus.NOT_FOUND, ProblemCode.EVENTS_OFF, detail)
    oldest, newest = found.ends.pruned_to, found.ends.position
    if not oldest <= found.after <= newest:
        raise ProblemError(
            HTTPStatus.GONE,
            ProblemCode.POSITION_GONE,
            f"after: the log has the positions after {oldest}, up to {newest}",
            members={"oldest": oldest, "newest": newest},
        )
    return wanted.page(found.events, found.after), len(found.events) < wanted.rows


async def _next(followers: Followers, follower: Follower, seconds: int) -> Page:
    with followers.joined([follower]):
        # Something may have come before somebody looked out for it.
        await run_in_threadpool(followers.look, [follower])
        await followers.wait([follower], seconds)
    return follower.told or Page((), follower.after)
