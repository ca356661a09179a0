"""Everything that happened to one learner, in the order in which it was handled."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a timeline: behind the entry with this moment and key.

    Parameters:
        recorded_at: the moment of handling.
        key: tells entries of the same moment apart, and has an order.
    """

    recorded_at: datetime
    key: str

    def cursor(self) -> str:
        """Return it as a text for an address."""
        text = json.dumps([self.recorded_at.isoformat(), self.key])
        return urlsafe_b64encode(text.encode("ascii")).decode("ascii")

    @classmethod
    def of(cls, cursor: str) -> Self:
        """Read a cursor.

        Raises:
            ValueError: it is none. A TypeError or an OverflowError says the same.
        """
        recorded_at, key = json.loads(urlsafe_b64decode(cursor.encode("ascii")))
        if not isinstance(key, str) or "\x00" in key:
            raise ValueError("is no cursor")
        moment = datetime.fromisoformat(recorded_at)
        if moment.utcoffset() is None:
            raise ValueError("is no cursor")
        # No lone surrogates, and no offsets that PostgreSQL does not know.
        return cls(moment.astimezone(UTC), key.encode("utf-8").decode("utf-8"))


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened.

    Parameters:
        position: behind it.
        at: when it happened.
        what: what sort of thing.
        details: what else there is to say, by name.
    """

    position: Position
    at: datetime
    what: str
    details: dict[str, Any]


# The keys begin with a digit that says what comes first of what was handled in one moment: the command, then the
# attempt, its transition and what follows from it. A learner has some hundred rows, each found by an index.
_TIMELINE = """
WITH of_learner AS MATERIALIZED (
    SELECT id, coalesce(attempt_code, id::text) AS attempt_code, exam_id, removed_at
    FROM attempts
    WHERE user_id = %(user_id)s
), told AS MATERIALIZED (
    SELECT
        inbox.id, inbox.source, inbox.command_id, inbox.type, outcome.outcome, outcome.code, outcome.detail,
        outcome.exam_id, outcome.to_status, outcome.handled_at
    FROM outcomes AS outcome
    JOIN inbox ON inbox.id = outcome.inbox_id
    WHERE outcome.user_id = %(user_id)s
), changed AS MATERIALIZED (
    SELECT
        transition.id, transition.version, transition.from_status, transition.to_status, transition.at,
        coalesce(transition.recorded_at, transition.at) AS recorded_at, transition.source, transition.command_id,
        of_learner.attempt_code, of_learner.exam_id
    FROM of_learner
    JOIN transitions AS transition ON transition.attempt_id = of_learner.id
), owed AS MATERIALIZED (
    SELECT
        effect.id, effect.kind, effect.state, effect.created_at, effect.source, effect.command_id,
        of_learner.attempt_code, effect.sequence
    FROM of_learner
    JOIN effects AS effect ON effect.attempt_id = of_learner.id
), entries AS (
    SELECT
        handled_at AS recorded_at, '0:' || lpad(id::text, 20, '0') AS key, handled_at AS at, 'command' AS what,
        jsonb_build_object(
            'source', source, 'id', command_id, 'type', type, 'outcome', outcome, 'code', code, 'detail', detail,
            'exam_id', exam_id, 'to_status', to_status
        ) AS details
    FROM told
    UNION ALL
    SELECT
        message.received_at, '1:' || lpad(message.id::text, 20, '0'), message.received_at, 'quarantined',
        jsonb_build_object(
            'source', message.source, 'id', message.command_id, 'code', message.code,
            'detail', message.detail, 'quarantine_id', message.id
        )
    FROM told
    JOIN quarantine AS message ON message.source = told.source AND message.command_id = told.command_id
    UNION ALL
    SELECT
        recorded_at, '2:' || id, at, 'attempt',
        jsonb_build_object('attempt_code', attempt_code, 'exam_id', exam_id, 'change', 'created')
    FROM changed
    WHERE version = 1
    UNION ALL
    SELECT
        removed_at, '5:' || id, removed_at, 'attempt',
        jsonb_build_object('attempt_code', attempt_code, 'exam_id', exam_id, 'change', 'removed')
    FROM of_learner
    WHERE removed_at IS NOT NULL
    UNION ALL
    SELECT
        recorded_at, '3:' || attempt_code || lpad(version::text, 10, '0'), at, 'transition',
        jsonb_build_object(
            'attempt_code', attempt_code, 'exam_id', exam_id, 'from_status', from_status, 'to_status', to_status,
            'version', version, 'source', source, 'command_id', command_id
        )
    FROM changed
    UNION ALL
    SELECT
        created_at, '4:' || lpad(sequence::text, 20, '0'), created_at, 'effect',
        jsonb_build_object(
            'id', id, 'kind', kind, 'state', state, 'attempt_code', attempt_code, 'source', source,
            'command_id', command_id
        )
    FROM owed
    UNION ALL
    SELECT
        tries.started_at, '6:' || tries.effect_id || lpad(tries.number::text, 10, '0'), tries.started_at, 'try',
        jsonb_build_object(
            'effect_id', tries.effect_id, 'kind', owed.kind, 'number', tries.number, 'result', tries.result,
            'error', tries.error, 'finished_at', to_char(
                tries.finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
            ), 'attempt_code', owed.attempt_code
        )
    FROM owed
    JOIN tries ON tries.effect_id = owed.id
    UNION ALL
    SELECT
        tries.finished_at, '7:' || tries.effect_id || lpad(tries.number::text, 10, '0'), tries.finished_at, 'mail',
        jsonb_build_object('effect_id', tries.effect_id, 'attempt_code', owed.attempt_code)
    FROM owed
    JOIN tries ON tries.effect_id = owed.id
    WHERE owed.kind = %(mail)s AND tries.result = 'done'
)
SELECT recorded_at, key, at, what, details
FROM entries
WHERE %(after_at)s::timestamptz IS NULL
    OR (recorded_at, key COLLATE "C") > (%(after_at)s::timestamptz, %(after_key)s::text COLLATE "C")
ORDER BY recorded_at, key COLLATE "C"
LIMIT %(limit)s
"""


def read(
    connection: Connection, user_id: str, *, mail_kind: str, after: Position | None, limit: int
) -> Sequence[Entry]:
    """Return what happened to a learner, oldest first.

    A message in quarantine is found if it shares its source and id with a command of the learner.

    Parameters:
        mail_kind: the kind of the effects that are mails.
        after: entries behind this place only. None for the beginning.
        limit: how many at most.
    """
    values = {
        "user_id": user_id,
        "mail": mail_kind,
        "after_at": None if after is None else after.recorded_at,
        "after_key": None if after is None else after.key,
        "limit": limit,
    }
    return [
        Entry(Position(row.recorded_at, row.key), row.at, row.what, row.details)
        for row in connection.exec_driver_sql(_TIMELINE, values)
    ]
