"""The span of a call: what it leads to is below it in its trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from fastapi import Request

from invigilator.web.problems import ProblemError
from worker import tracing
from worker.tracing import Kind, Span

_STATUS = "http.response.status_code"


@contextmanager
def serving(request: Request, route: str) -> Iterator[Span]:
    """Make a span of a call, in the trace of its header `traceparent` or of its own.

    A refusal is the caller's matter. So it is a status, and no failure of the span.

    Parameters:
        route: as the API has it, without ids.
    """
    attributes = {"http.request.method": request.method, "http.route": route}
    parent = request.headers.get("traceparent")
    span = tracing.begin(f"{request.method} {route}", Kind.SERVER, parent, attributes)
    try:
        yield span
    except ProblemError as problem:
        span.note({_STATUS: problem.status})
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.fail(str(problem.status.value))
        raise
    except Exception as error:
        span.fail(type(error).__name__)
        raise
    finally:
        span.end()


def note_status(span: Span, status: int) -> None:
    """Note with which status a call is answered."""
    span.note({_STATUS: status})
