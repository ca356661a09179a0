"""What has become of commands that somebody waits for: one statement for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from db.lookups import ATTEMPT, ATTEMPT_CODE, LIVE_FIRST
from db.recordset import Row, recordset
from events.commands import Command, Fingerprint


@dataclass(frozen=True, slots=True)
class Told:
    """What the database says of a command.

    Parameters:
        fingerprint: of the command that was handled with this source and id. None if none was.
        outcome: its outcome. None without one; so are the next two.
        quarantine_id: of the newest message in quarantine with this source and id. 0 without one.
        quarantine_code: why that is there.
        quarantine_detail: in words.
        attempt: the one that the command names, or else the learner's at the exam, as it is now. None without one,
            and while nothing has become of the command.
    """

    fingerprint: Fingerprint | None
    outcome: str | None
    code: str | None
    detail: str | None
    quarantine_id: int
    quarantine_code: str | None
    quarantine_detail: str | None
    attempt: Mapping[str, Any] | None


_TOLD = f"""
SELECT
    inbox.fingerprint,
    inbox.sent_defaults,
    outcomes.outcome,
    outcomes.code,
    outcomes.detail,
    coalesce(message.id, 0) AS quarantine_id,
    message.code AS quarantine_code,
    message.detail AS quarantine_detail,
    to_json(attempt) AS attempt
FROM (
    SELECT *
    FROM json_to_recordset(%(commands)s) AS one (
        number int, source text, command_id text, exam_id text, user_id text, attempt_code text
    )
    LIMIT %(number)s
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
LEFT JOIN LATERAL (
    SELECT {ATTEMPT}
    FROM attempts
    WHERE attempts.user_id = one.user_id
        AND attempts.exam_id = one.exam_id
        AND (one.attempt_code IS NULL OR {ATTEMPT_CODE} = one.attempt_code)
    ORDER BY {LIVE_FIRST}
    LIMIT 1
) AS attempt ON outcomes.outcome IS NOT NULL OR message.id IS NOT NULL
ORDER BY one.number
"""  # noqa: S608 - all parts are ours


def look(connection: Connection, commands: Sequence[Command]) -> list[Told]:
    """Return what is known of each of these commands, in their order."""
    asked = [_asked(number, command) for number, command in enumerate(commands)]
    rows = connection.exec_driver_sql(_TOLD, {"commands": recordset(asked), "number": len(asked)})
    return [
        Told(
            fingerprint=(
                None if row.outcome is None else Fingerprint(bytes(row.fingerprint), row.sent_defaults)
            ),
            outcome=row.outcome,
            code=row.code,
            detail=row.detail,
            quarantine_id=row.quarantine_id,
            quarantine_code=row.quarantine_code,
            quarantine_detail=row.quarantine_detail,
            attempt=row.attempt,
        )
        for row in rows
    ]


def _asked(number: int, command: Command) -> Row:
    return {
        "number": number,
        "source": command.source,
        "command_id": command.id,
        "exam_id": getattr(command.data, "exam_id", None),
        "user_id": command.data.learner_id,
        "attempt_code": getattr(command.data, "attempt_code", None),
    }
