"""`GET /v1/attempts` and `GET /v1/attempt`."""

from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Response

from db import lookups
from events.vocabulary import Status
from invigilator.web.access import Access
from invigilator.web.documents import AttemptHistory, AttemptPage
from invigilator.web.problems import invalid_query, not_found
from invigilator.web.reading import DEFAULT_PAGE, Limit, OptionalId, Reader, reading_router


class Removed(StrEnum):
    """Which attempts are wanted."""

    FALSE = "false"
    TRUE = "true"
    ANY = "any"


_REMOVED = {Removed.FALSE: False, Removed.TRUE: True, Removed.ANY: None}


def routes(reader: Reader, access: Access) -> APIRouter:
    """Return the routes of attempts."""
    router = reading_router(access)

    @router.get("/v1/attempts", response_model=AttemptPage)
    def attempts(
        exam_id: OptionalId = None,
        user_id: OptionalId = None,
        course_id: OptionalId = None,
        status: Status | None = None,
        removed: Removed = Removed.FALSE,
        limit: Limit = DEFAULT_PAGE,
        cursor: UUID | None = None,
    ) -> Any:
        """Attempts, oldest first. `removed` is `true` for those that were removed, and `any` for both.

        A page may have fewer attempts than `limit`, or none. The last one has no `next`.
        """
        wanted = partial(
            lookups.attempts,
            course_id=course_id,
            exam_id=exam_id,
            user_id=user_id,
            status=status,
            removed=_REMOVED[removed],
            after=cursor,
            limit=limit,
        )
        page = reader.ask(wanted)
        return {"attempts": page.attempts, "next": page.next}

    @router.get("/v1/attempt", response_model=AttemptHistory, responses={304: {"description": "Unchanged."}})
    def attempt(
        response: Response,
        code: OptionalId = None,
        exam_id: OptionalId = None,
        user_id: OptionalId = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Any:
        """An attempt with its history: by its code, or the live one, else the last one, of a learner at an exam.

        The ETag is its version, which each transition and the removal change, and effects do not. `If-None-Match`
        is looked at only together with `code`: the attempt of a learner at an exam may be another one.
        """
        if code is None and (exam_id is None or user_id is None):
            raise invalid_query("name the attempt: code, or exam_id and user_id")
        wanted = partial(lookups.attempt_history, code=code, exam_id=exam_id, user_id=user_id)
        found = reader.ask(wanted)
        if found["attempt"] is None:
            raise not_found("no such attempt")
        etag = _etag(found["attempt"])
        if code is not None and etag in _tags(if_none_match):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag})
        response.headers["ETag"] = etag
        return found

    return router


def _etag(attempt: lookups.Row) -> str:
    # A removal leaves the version as it is.
    return f'"{attempt["version"]}{"-removed" if attempt["removed_at"] else ""}"'


def _tags(header: str | None) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in (header or "").split(",")}
