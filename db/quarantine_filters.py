"""Which messages in quarantine are meant: one filter for listing, counting, replaying and discarding them.

The quarantine is bounded, and its bodies are stored beside the table: each statement reads some megabytes at most.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Fitting:
    """Which messages are meant. None stands for any.

    Parameters:
        code: why they are no valid commands.
        source: the sender.
        last: the id of the newest that is meant.
    """

    code: str | None = None
    source: str | None = None
    last: int | None = None

    def as_json(self) -> dict[str, str | int]:
        """Return the members that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


_FITS = """
    (%(code)s::text IS NULL OR code = %(code)s)
    AND (%(source)s::text IS NULL OR source = %(source)s)
    AND (%(last)s::bigint IS NULL OR id <= %(last)s)
"""

_COUNT_FITTING = f"SELECT count(*) AS number, coalesce(max(id), 0) AS last FROM quarantine WHERE {_FITS}"  # noqa: S608

_FITTING = f"""
SELECT id
FROM quarantine
WHERE id > %(after)s AND id <= %(newest)s AND {_FITS}
ORDER BY id
LIMIT %(limit)s
"""  # noqa: S608 - no values

_PAGE = f"""
SELECT id, code, detail, size, received_at, source, command_id
FROM quarantine
WHERE id > %(after)s AND {_FITS}
ORDER BY id
LIMIT %(limit)s
"""  # noqa: S608 - no values


def count(connection: Connection, wanted: Fitting) -> tuple[int, int]:
    """Return how many messages fit, and the id of the newest of them; 0 when there is none."""
    row = connection.exec_driver_sql(_COUNT_FITTING, asdict(wanted)).one()
    return row.number, row.last


def ids(connection: Connection, wanted: Fitting, *, after: int, last: int, limit: int) -> list[int]:
    """Return the ids of messages that fit, oldest first.

    Parameters:
        after: ids above this one.
        last: and not above this one.
    """
    values = asdict(wanted) | {"after": after, "newest": last, "limit": limit}
    return list(connection.exec_driver_sql(_FITTING, values).scalars())


def page(connection: Connection, wanted: Fitting, *, after: int, limit: int) -> list[dict[str, Any]]:
    """Return messages that fit, without their bodies, oldest first."""
    values = asdict(wanted) | {"after": after, "limit": limit}
    return [dict(row._mapping) for row in connection.exec_driver_sql(_PAGE, values)]
