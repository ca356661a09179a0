"""The inbox says which commands are new. The quarantine keeps messages that are no valid commands."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from db.models import QuarantinedMessage
from db.recordset import recordset
from events.commands import Fingerprint
from events.vocabulary import Outcome, OutcomeCode, QuarantineCode

Key = tuple[str, str]
"""(source, id) of a command."""

TRIMMED_ROWS = 2_000
"""The most messages discarded at a time. A batch adds fewer, so the quarantine shrinks to its bounds."""
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of the quarantine: a flood of messages must not fill the disk."""

    messages: int = 10_000
    megabytes: int = 1_024
    """All bodies together, in MiB."""


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class Arrival:
    """What the inbox keeps of a command."""

    key: Key
    type: str
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a command."""

    outcome: Outcome
    code: OutcomeCode | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message for the quarantine, whole."""

    code: QuarantineCode
    detail: str
    headers: dict[str, Any]
    body: bytes
    received_at: datetime
    source: str | None = None
    """As the message says. None if it cannot be read, as `command_id`."""
    command_id: str | None = None


_FINGERPRINTS = """
SELECT source, command_id, fingerprint, sent_defaults
FROM (
    SELECT * FROM json_to_recordset(%(keys)s) AS one (source text, command_id text) LIMIT %(number)s
) AS key
JOIN inbox USING (source, command_id)
"""

# The newest message stays, however big it is.
#
# Nobody waits here, neither for another shard nor for a person who replays a message. What another shard adds or
# discards at the same time is not seen: the next one to add messages evens it out.
#
# An array rather than a join makes PostgreSQL look the rows up. For a join it may read the whole table.
_TRIM_QUARANTINE = """
WITH sized AS (
    SELECT id, row_number() OVER newest_first AS number, sum(size) OVER newest_first AS total
    FROM quarantine
    WINDOW newest_first AS (ORDER BY id DESC)
), discarded AS (
    DELETE FROM quarantine
    WHERE id = ANY (ARRAY(
        SELECT id
        FROM quarantine
        WHERE id <= (
            SELECT max(id)
            FROM sized
            WHERE number > 1 AND (number > %(messages)s OR total > %(bytes)s)
        )
        ORDER BY id
        LIMIT %(trimmed_rows)s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
), counted AS (
    UPDATE shards
    SET quarantine_discarded = quarantine_discarded + (SELECT count(*) FROM discarded)
    WHERE shard = %(shard)s AND EXISTS (SELECT FROM discarded)
)
SELECT count(*) FROM discarded
"""


def fingerprints(connection: Connection, keys: Iterable[Key]) -> dict[Key, Fingerprint]:
    """The fingerprints under which commands were first seen, by key. Commands that were never seen are missing."""
    wanted = [{"source": source, "command_id": command_id} for source, command_id in keys]
    if not wanted:
        return {}
    found = connection.exec_driver_sql(_FINGERPRINTS, {"keys": recordset(wanted), "number": len(wanted)})
    return {
        (row.source, row.command_id): Fingerprint(bytes(row.fingerprint), row.sent_defaults) for row in found
    }


def write_quarantine(
    connection: Connection, shard: int, messages: Sequence[Unreadable], bounds: Bounds = DEFAULT_BOUNDS
) -> int:
    """Put messages into quarantine, raw, and discard the oldest ones beyond its bounds.

    Returns how many were discarded. The shard counts them.
    """
    if not messages:
        return 0
    # The one hot set that does not travel as JSON: bodies may be hundreds of MiB, and JSON would copy them.
    connection.execute(
        insert(QuarantinedMessage),
        [
            {
                "shard": shard,
                "code": message.code,
                "detail": message.detail,
                "headers": message.headers,
                "body": message.body,
                "received_at": message.received_at,
                "source": message.source,
                "command_id": message.command_id,
            }
            for message in messages
        ],
    )
    values = {
        "messages": bounds.messages,
        "bytes": bounds.megabytes * MEBIBYTE,
        "trimmed_rows": TRIMMED_ROWS,
        "shard": shard,
    }
    return int(connection.exec_driver_sql(_TRIM_QUARANTINE, values).scalar_one())
