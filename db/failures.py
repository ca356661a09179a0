"""The tries that have failed of late, by what the other side has answered: what the console draws."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

LOOKED_AT = 20_000
"""The newest tries are counted, up to so many: more would take longer than somebody waits for a page."""

# The partial index on the end of failed tries gives the newest.
_BY_ANSWER = """
SELECT
    date_bin(%(every)s, recent.finished_at, 'epoch') AS at,
    coalesce(causes.status::text, causes.exception) AS answer,
    causes.kind,
    count(*) AS number
FROM (
    SELECT finished_at, cause
    FROM tries
    WHERE cause IS NOT NULL AND finished_at >= statement_timestamp() - %(back)s
    ORDER BY finished_at DESC
    LIMIT %(looked_at)s
) AS recent
JOIN causes ON causes.id = recent.cause
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
"""


def by_answer(connection: Connection, back: timedelta, every: timedelta) -> dict[str, dict[datetime, int]]:
    """Return how many tries have failed, by answer and kind and by the beginning of a span of time.

    Where nothing has answered, the class of the error stands for the answer: `503 set_credit_status`,
    `Unavailable send_status_email`.

    Parameters:
        back: how far back to look.
        every: the length of a span.
    """
    found: dict[str, dict[datetime, int]] = {}
    values = {"back": back, "every": every, "looked_at": LOOKED_AT}
    for row in connection.exec_driver_sql(_BY_ANSWER, values):
        name = " ".join(filter(None, (row.answer, row.kind)))
        found.setdefault(name, {})[row.at] = row.number
    return found
