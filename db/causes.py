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

# In an outage a cause has hundreds of thousands of effects. They are counted without sorting them. The example is
# looked up afterwards by the cause, which has one kind. What failed in a release before revision 0034 has no cause.
# It is counted by kind, so that nothing is missing.
_FAILING = """
WITH counted AS (
    SELECT
        cause,
        kind,
        CASE state WHEN 'failed' THEN 'failed' ELSE 'retrying' END AS state,
        count(*) AS count,
        min(coalesce(retrying_since, failed_at, created_at)) AS first_seen,
        max(failed_at) AS last_seen
    FROM effects
    WHERE cause IS NOT NULL AND state IN ('pending', 'running', 'failed')
    GROUP BY 1, 2, 3
), failing AS (
    SELECT
        counted.*,
        (
            SELECT effects.id
            FROM effects
            WHERE effects.cause = counted.cause
                AND effects.state = ANY (
                    CASE counted.state WHEN 'failed' THEN ARRAY['failed'] ELSE ARRAY['pending', 'running'] END
                )
                AND effects.failed_at = counted.last_seen
            LIMIT 1
        ) AS example,
        NULL AS reason
    FROM counted
    UNION ALL
    SELECT
        NULL,
        kind,
        'failed',
        count(*),
        min(coalesce(retrying_since, failed_at, created_at)),
        max(failed_at),
        (array_agg(id ORDER BY failed_at DESC NULLS LAST))[1],
        max(last_error)
    FROM effects
    WHERE cause IS NULL AND state = 'failed'
    GROUP BY kind
)
SELECT
    failing.cause,
    failing.kind,
    failing.state,
    failing.count,
    causes.status,
    coalesce(causes.reason, failing.reason) AS reason,
    causes.exception,
    failing.first_seen,
    failing.last_seen,
    failing.example
FROM failing
LEFT JOIN causes ON causes.id = failing.cause
ORDER BY failing.count DESC, failing.kind, failing.cause
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
