"""The causes of failures: which there are, and what fails because of each."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from db.recordset import Row, recordset

# In the order of their ids, so that two who store the same causes wait for each other and do not deadlock.
_STORE = """
INSERT INTO causes (id, kind, status, exception, reason)
SELECT id, kind, status, exception, reason
FROM json_to_recordset(%(causes)s) AS cause (id text, kind text, status int, exception text, reason text)
ORDER BY id
ON CONFLICT (id) DO NOTHING
"""

# What failed in a release before revision 0034 has no cause. It is counted by kind, so that nothing is missing.
_FAILING = """
WITH failing AS (
    SELECT cause, kind, CASE state WHEN 'failed' THEN 'failed' ELSE 'retrying' END AS state,
        retrying_since, failed_at, last_error, id, created_at
    FROM effects
    WHERE (cause IS NOT NULL AND state IN ('pending', 'running', 'failed')) OR (cause IS NULL AND state = 'failed')
)
SELECT
    failing.cause,
    failing.kind,
    failing.state,
    count(*) AS count,
    causes.status,
    coalesce(causes.reason, max(failing.last_error)) AS reason,
    causes.exception,
    min(coalesce(failing.retrying_since, failing.failed_at, failing.created_at)) AS first_seen,
    max(failing.failed_at) AS last_seen,
    (array_agg(failing.id ORDER BY failing.failed_at DESC NULLS LAST))[1] AS example
FROM failing
LEFT JOIN causes ON causes.id = failing.cause
GROUP BY failing.cause, failing.kind, failing.state, causes.id
ORDER BY count(*) DESC, failing.kind, failing.cause
"""

_FIND = "SELECT id, kind, status, exception, reason, first_seen FROM causes WHERE id = %(id)s"


def store(connection: Connection, causes: Sequence[Row]) -> None:
    """Store causes that are not there yet. That costs no statement when there are none.

    Locks: after effects, and before circuits.
    """
    if causes:
        connection.exec_driver_sql(_STORE, {"causes": recordset(causes)})


def failing(connection: Connection) -> list[dict[str, Any]]:
    """Return why effects fail, or are tried again: a row for each cause and state, the most frequent first.

    The state is `failed` or `retrying`. `first_seen` is since when the effect that fails for longest has been tried
    in vain, `last_seen` when one of them last failed, and `example` the effect that did.
    """
    return [row._asdict() for row in connection.exec_driver_sql(_FAILING)]


def find(connection: Connection, cause_id: str) -> dict[str, Any] | None:
    """Return a cause. None when there is none with this id."""
    row = connection.exec_driver_sql(_FIND, {"id": cause_id}).first()
    return None if row is None else row._asdict()
