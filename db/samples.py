"""Samples of the totals and of the backlog, from which rates and failures over the last hours are told."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import Connection

from db import totals
from db.recordset import recordset

EVERY = timedelta(minutes=5)
"""The time between two samples, whichever process takes them."""
KEPT = timedelta(days=2)

PENDING = "pending"
FAILED = "failed"

_TAKE = """
INSERT INTO samples (at, name, labels, value)
SELECT date_bin(%(every)s, statement_timestamp(), 'epoch'), name, labels, value
FROM json_to_recordset(%(values)s) AS sample (name text, labels text[], value float8)
ON CONFLICT DO NOTHING
"""

_FORGET = "DELETE FROM samples WHERE at < statement_timestamp() - %(kept)s"

_SERIES = """
SELECT at, labels, value
FROM samples
WHERE name = %(name)s AND at >= statement_timestamp() - %(back)s
ORDER BY at, labels
"""

Series = dict[totals.Key, list[tuple[datetime, float]]]
"""The samples with the same labels, oldest first."""


def take(connection: Connection, values: Mapping[totals.Key, float]) -> None:
    """Store what is counted now, and forget what is old. Of several processes one stores it.

    Parameters:
        values: by name and labels.
    """
    rows = [{"name": name, "labels": labels, "value": value} for (name, *labels), value in values.items()]
    connection.exec_driver_sql(_TAKE, {"every": EVERY, "values": recordset(rows)})
    connection.exec_driver_sql(_FORGET, {"kept": KEPT})


def series(connection: Connection, name: str, back: timedelta) -> Series:
    """The samples of a name, by labels.

    Parameters:
        back: how far back to look.
    """
    found: Series = {}
    for row in connection.exec_driver_sql(_SERIES, {"name": name, "back": back}):
        found.setdefault(tuple(row.labels), []).append((row.at, row.value))
    return found


def increases(samples: Series) -> Series:
    """How much each total has grown from one sample to the next. The time is that of the later one.

    A label that appears between two samples counts from nothing.
    """
    moments = sorted({at for points in samples.values() for at, _ in points})
    grown: Series = {}
    for labels, points in samples.items():
        values = dict(points)
        grown[labels] = [
            (at, max(0.0, values.get(at, 0.0) - values.get(before, 0.0))) for before, at in pairwise(moments)
        ]
    return grown
