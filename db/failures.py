"""The tries that have failed of late, by cause: what the console draws."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

LOOKED_AT = 20_000
"""The newest tries are counted, up to so many: more would take longer than somebody waits for a page."""

# The partial index on the end of failed tries gives the newest.
_BY_CAUSE = """
SELECT date_bin(%(every)s, recent.finished_at, 'epoch') AS at, recent.cause, count(*) AS number
FROM (
    SELECT finished_at, cause
    FROM tries
    WHERE cause IS NOT NULL AND finished_at >= statement_timestamp() - %(back)s
    ORDER BY finished_at DESC
    LIMIT %(looked_at)s
) AS recent
GROUP BY 1, 2
ORDER BY 1, 2
"""


def by_cause(connection: Connection, back: timedelta, every: timedelta) -> dict[str, dict[datetime, int]]:
    """Return how many tries have failed, by cause and by the beginning of a span of time.

    Parameters:
        back: how far back to look.
        every: the length of a span.
    """
    found: dict[str, dict[datetime, int]] = {}
    values = {"back": back, "every": every, "looked_at": LOOKED_AT}
    for row in connection.exec_driver_sql(_BY_CAUSE, values):
        found.setdefault(row.cause, {})[row.at] = row.number
    return found
