"""Prepared statements: PostgreSQL plans them once for each session.

The plan of a small batch takes longer than its execution.

They need a direct connection: behind PgBouncer in transaction mode the next transaction may get another session.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, CursorResult

from db import round_trips

PREPARES = "invigilator_prepares"
"""The execution option of connections that are direct."""

SESSION_SETTINGS = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
"""The libpq options of a session that prepares.

They say how PostgreSQL plans: once for each statement, and by an index. There is an index for everything that these
statements read, but a plan that was made while the tables were empty would read the whole tables later.
"""

_PARAMETER = re.compile(r"%\((\w+)\)s")


def execute(connection: Connection, statement: str, values: Mapping[str, Any]) -> CursorResult[Any]:
    """Run a statement, prepared if the connection is direct.

    Parameters:
        statement: SQL text with parameters `%(name)s`, whose types PostgreSQL can infer. Each distinct text stays
            prepared as long as the session lives, so there must be few.
        values: of the parameters, by name.
    """
    return connection.exec_driver_sql(_text(connection, statement), dict(values))


def execute_later(connection: Connection, statement: str, values: Mapping[str, Any]) -> None:
    """Run a statement whose answer nobody needs together with the next one (`round_trips.later`).

    Parameters: as for `execute`.
    """
    round_trips.later(connection, _text(connection, statement), values)


def _text(connection: Connection, statement: str) -> str:
    if connection.get_execution_options().get(PREPARES):
        return _prepared(connection, statement)
    return statement


def _prepared(connection: Connection, statement: str) -> str:
    # psycopg2 does not support prepared statements. `info` lives as long as the session, and so do their names.
    known: dict[str, str] = connection.info.setdefault("prepared", {})
    if statement not in known:
        names = list(dict.fromkeys(_PARAMETER.findall(statement)))
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
        # The name says which statement it is. In a session that a pooler hands on, PostgreSQL refuses to prepare it
        # twice, or to execute it where it is missing, but it never executes another one in its place.
        name = f"invigilator_{hashlib.sha256(numbered.encode()).hexdigest()[:16]}"
        connection.exec_driver_sql(f"PREPARE {name} AS {numbered}")
        values = f" ({', '.join(f'%({one})s' for one in names)})" if names else ""
        known[statement] = f"EXECUTE {name}{values}"
    return known[statement]
