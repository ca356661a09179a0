"""Acts in bulk: how far each has come, and whether it is to stop. A row tells; the audit proves."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

SILENT_FOR = "5 min"
"""After so long without a step an act is taken for interrupted. A step that is repeated takes a minute."""


class BulkState(StrEnum):
    """Where an act in bulk stands."""

    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """It is seen no more: its process was killed, or it waits for a thread. No row says so, and it can go on."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an act in bulk has come."""

    id: UUID
    action: str
    filter: dict[str, Any]
    actor: str
    expected: int
    """How many matched at the beginning."""
    done: int
    refused: int
    state: str
    started_at: datetime
    seen_at: datetime
    """When its last step was made."""
    ended_at: datetime | None


_COLUMNS = f"""
id, action, filter, actor, expected, done, refused,
CASE
    WHEN ended_at IS NULL AND seen_at < clock_timestamp() - interval '{SILENT_FOR}' THEN 'interrupted'
    ELSE state
END AS state,
started_at, seen_at, ended_at
"""

_START = """
INSERT INTO bulk_acts (id, action, filter, actor, expected, state)
VALUES (%(id)s, %(action)s, %(filter)s::jsonb, %(actor)s, %(expected)s, 'running')
"""

_ADVANCE = f"""
UPDATE bulk_acts
SET done = done + %(done)s, refused = refused + %(refused)s, seen_at = clock_timestamp()
WHERE id = %(id)s
RETURNING {_COLUMNS}
"""  # noqa: S608 - no values

_END = f"""
UPDATE bulk_acts
SET state = %(state)s, seen_at = clock_timestamp(), ended_at = clock_timestamp()
WHERE id = %(id)s
RETURNING {_COLUMNS}
"""  # noqa: S608 - no values

_STOP = "UPDATE bulk_acts SET state = 'stopping' WHERE id = %(id)s AND state = 'running'"

_IS_TO_STOP = "SELECT state = 'stopping' FROM bulk_acts WHERE id = %(id)s"

_READ = f"SELECT {_COLUMNS} FROM bulk_acts WHERE id = %(id)s"  # noqa: S608 - no values

_NEWEST = f"SELECT {_COLUMNS} FROM bulk_acts ORDER BY started_at DESC LIMIT %(limit)s"  # noqa: S608 - no values


def start(
    connection: Connection, act_id: UUID, action: str, wanted: Mapping[str, Any], actor: str, expected: int
) -> None:
    """Write that an act begins.

    Parameters:
        act_id: of the act in the audit.
        action: such as `retry`.
        wanted: the filter, as JSON values.
        actor: who acts.
        expected: how many match.
    """
    values = {
        "id": act_id,
        "action": action,
        "filter": orjson.dumps(wanted).decode(),
        "actor": actor,
        "expected": expected,
    }
    connection.exec_driver_sql(_START, values)


def advance(connection: Connection, act_id: UUID, done: int, refused: int) -> Progress:
    """Add what a step has done. Returns how far the act has come, and whether it is to stop."""
    values = {"id": act_id, "done": done, "refused": refused}
    return Progress(**connection.exec_driver_sql(_ADVANCE, values).one()._mapping)


def end(connection: Connection, act_id: UUID, state: BulkState) -> Progress:
    """Write that an act has ended, and how."""
    values = {"id": act_id, "state": state.value}
    return Progress(**connection.exec_driver_sql(_END, values).one()._mapping)


def stop(connection: Connection, act_id: UUID) -> bool:
    """Have an act end before its next step. Returns whether it was running."""
    return connection.exec_driver_sql(_STOP, {"id": act_id}).rowcount > 0


def is_to_stop(connection: Connection, act_id: UUID) -> bool:
    """Return whether somebody has asked an act to stop."""
    return bool(connection.exec_driver_sql(_IS_TO_STOP, {"id": act_id}).scalar())


def read(connection: Connection, act_id: UUID) -> Progress | None:
    """Return how far an act has come. None when there is no such act."""
    row = connection.exec_driver_sql(_READ, {"id": act_id}).first()
    return None if row is None else Progress(**row._mapping)


def newest(connection: Connection, limit: int) -> list[Progress]:
    """Return the acts that began last, the newest first."""
    return [Progress(**row._mapping) for row in connection.exec_driver_sql(_NEWEST, {"limit": limit})]
