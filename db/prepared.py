"""Statements that PostgreSQL plans once for each session: for a small batch that takes longer than to run them.

Only where a session is one's own: behind PgBouncer in transaction mode the next transaction may be in another's.
"""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, CursorResult

PREPARES = "invigilator_prepares"
"""The execution option that says that a connection's session is its own."""

_PARAMETER = re.compile(r"%\((\w+)\)s")


def execute(connection: Connection, statement: str, values: Mapping[str, Any]) -> CursorResult[Any]:
    """Run a statement, prepared if the connection may do that.

    Parameters:
        statement: with parameters `%(name)s`, whose types PostgreSQL can tell; one of few.
        values: of the parameters.
    """
    if connection.get_execution_options().get(PREPARES):
        statement = _prepared(connection, statement)
    return connection.exec_driver_sql(statement, dict(values))


def _prepared(connection: Connection, statement: str) -> str:
    # psycopg2 does not know of prepared statements. The names are the session's, as `info` is.
    known: dict[str, str] = connection.info.setdefault("prepared", {})
    if statement not in known:
        names = list(dict.fromkeys(_PARAMETER.findall(statement)))
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
        name = f"invigilator_{len(known)}"
        connection.exec_driver_sql(f"PREPARE {name} AS {numbered}")
        known[statement] = f"EXECUTE {name} ({', '.join(f'%({one})s' for one in names)})"
    return known[statement]
