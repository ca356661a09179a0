"""The inbox says which commands are new. `db.batch` inserts into it, in the statement that begins a batch."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from db.recordset import recordset
from events.commands import Fingerprint
from events.vocabulary import Outcome, OutcomeCode

Key = tuple[str, str]
"""(source, id) of a command."""


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
    attempt_code: str | None = field(default=None, compare=False)
    """The attempt that it is about, where there is one. For logs."""


_FINGERPRINTS = """
SELECT source, command_id, fingerprint, sent_defaults
FROM (
    SELECT * FROM json_to_recordset(%(keys)s) AS one (source text, command_id text) LIMIT %(number)s
) AS key
JOIN inbox USING (source, command_id)
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
