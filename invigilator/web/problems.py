"""Errors as `application/problem+json` (RFC 9457). Each has a `code`, which programs look at."""

from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from db.errors import brief
from events.errors import InvigilatorError
from events.fields import printable
from worker.logs import get_logger

logger = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class ProblemCode(StrEnum):
    """Why a call failed, where it is not the code of a command that was refused."""

    UNAUTHORIZED = "unauthorized"
    NOT_ALLOWED = "not_allowed"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    INVALID_QUERY = "invalid_query"
    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    RATE_LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"
    EVENTS_OFF = "events_off"
    POSITION_GONE = "position_gone"
    ERROR = "error"


_BY_STATUS = {
    HTTPStatus.NOT_FOUND: ProblemCode.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED: ProblemCode.METHOD_NOT_ALLOWED,
}


class Problem(BaseModel):
    """The body of an error."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str


class ProblemError(InvigilatorError):
    """A call cannot be answered.

    Parameters:
        status: of HTTP.
        code: a `ProblemCode`, or the code with which a command was refused.
        detail: one line that says what to do. It quotes nothing of the call.
        headers: of the answer.
        members: what the body has besides.
    """

    code = "problem"

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.problem_code = code
        self.headers = headers
        self.members = members or {}

    def answer(self) -> JSONResponse:
        """Return the answer that tells of it."""
        body = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "code": self.problem_code,
            "detail": str(self),
            **self.members,
        }
        return JSONResponse(body, self.status, self.headers, MEDIA_TYPE)


def not_found(detail: str) -> ProblemError:
    """Make the error of a thing that is not there."""
    return ProblemError(HTTPStatus.NOT_FOUND, ProblemCode.NOT_FOUND, detail)


def unavailable(detail: str, members: Mapping[str, Any] | None = None) -> ProblemError:
    """Make the error of a call that may succeed in a few seconds."""
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE, ProblemCode.UNAVAILABLE, detail, {"Retry-After": "5"}, members
    )


def invalid_query(detail: str) -> ProblemError:
    """Make the error of a parameter that is missing or wrong."""
    return ProblemError(HTTPStatus.BAD_REQUEST, ProblemCode.INVALID_QUERY, detail)


def install(app: FastAPI) -> None:
    """Have an application answer every error as a problem."""
    app.add_exception_handler(ProblemError, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_invalid_query)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(DBAPIError, _on_database_error)
    app.add_exception_handler(Exception, _on_error)


async def _on_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return error.answer()


async def _on_invalid_query(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    # A place in a list has a number behind the name.
    name = next(part for part in reversed(problem["loc"]) if isinstance(part, str))
    return invalid_query(f"{printable(name)}: {problem['msg'].removeprefix('Value error, ')}").answer()


async def _on_http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = _BY_STATUS.get(status, ProblemCode.ERROR)
    return ProblemError(status, code, f"{status.phrase}; see /openapi.json", error.headers).answer()


async def _on_database_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DBAPIError)
    logger.warning("the database cannot answer", reason=brief(error))
    return unavailable("the database cannot answer now; try again").answer()


async def _on_error(_request: Request, _error: Exception) -> JSONResponse:
    detail = "unexpected; the log of `invigilator web` has the details"
    return ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, ProblemCode.ERROR, detail).answer()
