"""What has become of commands that somebody waits for: one statement for all of them."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection

from db.inbox import Key
from db.recordset import recordset
from events.commands import Fingerprint


@dataclass(frozen=True, slots=True)
class Told:
    """What the database says of a command.

    Parameters:
        fingerprint: of the command that was handled with this source and id. None if none was.
        outcome: its outcome. None without one; so are the next two.
        quarantine_id: of the newest message in quarantine with this source and id. 0 without one.
        quarantine_code: why that is there.
        quarantine_detail: in words.
    """

    fingerprint: Fingerprint | None
    outcome: str | None
    code: str | None
    detail: str | None
    quarantine_id: int
    quarantine_code: str | None
    quarantine_detail: str | None


_TOLD = """
SELECT
    one.source,
    one.command_id,
    inbox.fingerprint,
    inbox.sent_defaults,
    outcomes.outcome,
    outcomes.code,
    outcomes.detail,
    coalesce(message.id, 0) AS quarantine_id,
    message.code AS quarantine_code,
    message.detail AS quarantine_detail
FROM (
    SELECT * FROM json_to_recordset(%(keys)s) AS one (source text, command_id text) LIMIT %(number)s
) AS one
LEFT JOIN inbox ON inbox.source = one.source AND inbox.command_id = one.command_id
LEFT JOIN outcomes ON outcomes.inbox_id = inbox.id
LEFT JOIN LATERAL (
    SELECT id, code, detail
    FROM quarantine
    WHERE quarantine.source = one.source AND quarantine.command_id = one.command_id
    ORDER BY id DESC
    LIMIT 1
) AS message ON true
"""


def look(connection: Connection, keys: Collection[Key]) -> dict[Key, Told]:
    """Return what is known of each of these commands.

    Parameters:
        keys: pairs of source and id.
    """
    wanted = recordset([{"source": source, "command_id": command_id} for source, command_id in keys])
    rows = connection.exec_driver_sql(_TOLD, {"keys": wanted, "number": len(keys)})
    return {
        (row.source, row.command_id): Told(
            fingerprint=(
                None if row.outcome is None else Fingerprint(bytes(row.fingerprint), row.sent_defaults)
            ),
            outcome=row.outcome,
            code=row.code,
            detail=row.detail,
            quarantine_id=row.quarantine_id,
            quarantine_code=row.quarantine_code,
            quarantine_detail=row.quarantine_detail,
        )
        for row in rows
    }
