"""What the calls that read have in common: the scope, the parameters, and the way to the database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from db import connect
from db.connect import limit_statements
from events.fields import MAX_ID, STORABLE
from invigilator.web.access import Access
from invigilator.web.openapi import problems
from invigilator.web.tokens import Scope

Found = TypeVar("Found")

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


class Reader:
    """Asks the database questions that change nothing, in threads of the pool.

    Each statement is a transaction of its own, and goes with its time limit in one round trip. So a question that
    must see the database at one moment is one statement.

    Parameters:
        engine: of `make_engine(…, pre_ping=False, autocommit=True)`. A question over a connection that was lost is
            asked again.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        event.listen(engine, "before_cursor_execute", _limited, retval=True)

    def ask(self, question: Callable[[Connection], Found]) -> Found:
        """Return the answer. It blocks.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot answer.
        """
        with self._engine.connect() as connection:
            try:
                return question(connection)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
        with self._engine.connect() as connection:
            return question(connection)


# PostgreSQL takes what comes together for one transaction. A pooler keeps nothing of it.
_LIMITS = f"SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'; "


def _limited(
    _connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object
) -> tuple[str, Any]:
    return _LIMITS + statement, parameters


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read-only transaction, all of whose queries see the database at one moment."""
    with connect.reading(engine) as connection:
        limit_statements(connection, STATEMENT_TIMEOUT_S)
        yield connection
