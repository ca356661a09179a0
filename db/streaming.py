"""Rows as they come from the database, of which only a part is held at a time."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, CursorResult, Select

STREAMED_ROWS = 500
"""Rows that are fetched at a time."""


def stream(
    connection: Connection, statement: str | Select[*tuple[Any, ...]], values: Mapping[str, Any] | None = None
) -> CursorResult[Any]:
    """Execute a statement in the caller's transaction, and return its rows as they come from the database.

    Parameters:
        statement: SQL with psycopg2's placeholders (`%(name)s`), or a query of SQLAlchemy.
        values: of the placeholders.
    """
    # For a cursor PostgreSQL plans to have the first rows soon. For the effects of a learner it would go through
    # the index of all effects, from the newest on.
    connection.exec_driver_sql("SET LOCAL cursor_tuple_fraction = 1")
    options = {"yield_per": STREAMED_ROWS}
    if isinstance(statement, str):
        return connection.exec_driver_sql(statement, dict(values or {}), execution_options=options)
    return connection.execute(statement, dict(values or {}), execution_options=options)
