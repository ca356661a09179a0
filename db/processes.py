"""Signs of life: each process renews a row, and takes it away at a clean end. All times are the database's.

A process that is silent for too long is missing. Its row stays, so that people learn of it, until it is forgotten.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import orjson
from sqlalchemy import Connection

NOBODY = UUID(int=0)
"""The writer of totals to which a process that has ended leaves its own. It has what people did, too."""

FORGET_AFTER_S = 3600.0
"""Seconds after which a missing process is forgotten, whether or not another one has taken its place."""


class ProcessState(StrEnum):
    """What a process says of itself; `MISSING` is said of it by others."""

    WORKING = "working"
    STOPPING = "stopping"  # it was told to stop, and ends what it has begun
    STUCK = "stuck"  # it lives, but a loop of it has made no turn for long, or all its tries hang
    MISSING = "missing"  # it has been silent for too long. Never stored


@dataclass(frozen=True, slots=True)
class Sign:
    """What a process writes about itself.

    Parameters:
        id: names one run of the process, see `this_process`.
        role: its line in the Procfile, such as `commands`.
        host: the machine.
        pid: its number there.
        state: see `ProcessState`.
        doing: what it serves and what it is doing. `queues` is always there: the names of the queues that it reads.
    """

    id: UUID
    role: str
    host: str
    pid: int
    state: ProcessState
    doing: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """A process as its last sign of life describes it.

    Parameters:
        silent_s: seconds since that sign.
    """

    id: UUID
    role: str
    host: str
    pid: int
    state: str
    doing: Mapping[str, Any]
    started_at: datetime
    seen_at: datetime
    silent_s: float

    @property
    def queues(self) -> frozenset[str]:
        """The names of the queues that it reads."""
        return frozenset(self.doing.get("queues", ()))


_BEAT = """
INSERT INTO processes (id, role, host, pid, state, doing)
VALUES (%(id)s, %(role)s, %(host)s, %(pid)s, %(state)s, %(doing)s)
ON CONFLICT (id) DO UPDATE
SET state = excluded.state, doing = excluded.doing, seen_at = clock_timestamp()
RETURNING EXISTS (
    SELECT FROM processes AS other WHERE other.seen_at < clock_timestamp() - %(missing_after_s)s * interval '1 s'
)
"""

# Processes that others beat are locked, and so passed over. They are not missing.
_FORGET = """
WITH gone AS (
    DELETE FROM processes
    WHERE id = ANY (ARRAY(
        SELECT missing.id
        FROM processes AS missing
        WHERE missing.seen_at < clock_timestamp() - %(missing_after_s)s * interval '1 s'
            AND (
                missing.seen_at < clock_timestamp() - %(forget_after_s)s * interval '1 s'
                OR EXISTS (
                    SELECT
                    FROM processes AS live
                    WHERE live.role = missing.role
                        AND live.started_at > missing.seen_at
                        AND live.seen_at >= clock_timestamp() - %(missing_after_s)s * interval '1 s'
                        AND live.doing -> 'queues' @> (missing.doing -> 'queues')
                )
            )
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
)
"""

_LEAVE = "WITH gone AS (DELETE FROM processes WHERE id = %(id)s RETURNING id)"

# In one order, so that two who do this at the same time do not wait for each other.
_FOLD_TOTALS = """
, taken AS (
    DELETE FROM totals USING gone WHERE totals.writer = gone.id RETURNING totals.name, totals.labels, totals.value
)
INSERT INTO totals AS total (name, labels, writer, value)
SELECT name, labels, %(nobody)s, sum(value) FROM taken GROUP BY name, labels ORDER BY name, labels
ON CONFLICT (name, labels, writer) DO UPDATE SET value = total.value + excluded.value
"""

_SEEN = """
SELECT
    id, role, host, pid, state, doing, started_at, seen_at,
    extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_s
FROM processes
ORDER BY role, host, pid
"""


@cache
def _id_of(_pid: int) -> UUID:
    return uuid4()


def this_process() -> UUID:
    """Return the id that names this run of this process. A process that is forked has one of its own."""
    return _id_of(os.getpid())


def beat(connection: Connection, sign: Sign, missing_after_s: float) -> bool:
    """Write a sign of life. Returns whether a process may be missing, for `forget`.

    Parameters:
        missing_after_s: seconds of silence after which a process is missing.
    """
    doing = orjson.dumps(sign.doing).decode()
    values = asdict(sign) | {"state": sign.state.value, "doing": doing, "missing_after_s": missing_after_s}
    return bool(connection.exec_driver_sql(_BEAT, values).scalar_one())


def leave(connection: Connection, process_id: UUID) -> None:
    """Take the row of a process away, because it ends. What it has added to totals stays in their sums."""
    connection.exec_driver_sql(_LEAVE + _FOLD_TOTALS, {"id": process_id, "nobody": NOBODY})


def forget(connection: Connection, missing_after_s: float, forget_after_s: float = FORGET_AFTER_S) -> None:
    """Forget missing processes whose role is covered again, or which have been silent for `forget_after_s` seconds.

    A role is covered again when a process of that role, which reads at least the same queues, has begun after the
    last sign of the missing one, and lives.
    """
    values = {"missing_after_s": missing_after_s, "forget_after_s": forget_after_s, "nobody": NOBODY}
    connection.exec_driver_sql(_FORGET + _FOLD_TOTALS, values)


def seen(connection: Connection) -> list[Seen]:
    """Return every process that has not left and is not forgotten, by role, host and pid."""
    return [Seen(**one._mapping) for one in connection.exec_driver_sql(_SEEN)]
