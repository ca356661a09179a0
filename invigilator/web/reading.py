"""What the calls that read have in common: the scope, the parameters, and the transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection, Engine

from db.connect import limit_statements
from events.fields import MAX_ID, STORABLE
from invigilator.web.access import Access
from invigilator.web.openapi import problems
from invigilator.web.tokens import Scope

STATEMENT_TIMEOUT_S = 10
MAX_PAGE = 500
DEFAULT_PAGE = 100

_ID = Query(min_length=1, max_length=MAX_ID, pattern=STORABLE)
Id = Annotated[str, _ID]
"""An id that must be given."""
OptionalId = Annotated[str | None, _ID]
"""An id that may be left out."""
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
"""How many rows a page has at most."""


def reading_router(access: Access) -> APIRouter:
    """Return a router for calls that need the scope `read`. Each runs in a thread of the pool."""
    return APIRouter(
        dependencies=[Depends(access.needs(Scope.READ))], responses=problems(400, 401, 403, 404, 429, 503)
    )


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read-only transaction, all of whose queries see the database at one moment."""
    with engine.connect() as connection:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        reading = connection.execution_options(**options)
        limit_statements(reading, STATEMENT_TIMEOUT_S)
        yield reading
