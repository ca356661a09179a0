"""Everything that happened to one learner, in the order in which it was handled."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import Connection, CursorResult

from db import streaming


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
        what: what sort of thing: command, quarantined, attempt, transition, effect, try, mail, act or pruned.
        details: what else there is to say, by name.
    """

    position: Position
    at: datetime
    what: str
    details: dict[str, Any]

    @property
    def recorded_at(self) -> datetime:
        """The moment of handling."""
        return self.position.recorded_at

    def document(self) -> dict[str, Any]:
        """Return it as one object: the details beside the moments and the word."""
        return {"recorded_at": self.recorded_at, "at": self.at, "what": self.what, **self.details}


# The keys begin with a digit that says what comes first of what was handled in one moment: the command, then the
# attempt, its transition and what follows from it. A learner has some hundred rows, each found by an index.
#
# What pruning has taken is said once, before everything else. Its moment is at most that of the first entry.
_TIMELINE = """
WITH of_learner AS MATERIALIZED (
    SELECT id, coalesce(attempt_code, id::text) AS attempt_code, exam_id, removed_at
    FROM attempts
    WHERE user_id = %(user_id)s
), told AS MATERIALIZED (
    SELECT
        inbox.id, inbox.source, inbox.command_id, inbox.type, outcome.outcome, outcome.code, outcome.detail,
        outcome.exam_id, outcome.to_status, outcome.attempt_code, outcome.external_id, outcome.handled_at
    FROM outcomes AS outcome
    JOIN inbox ON inbox.id = outcome.inbox_id
    WHERE outcome.user_id = %(user_id)s
), suspected AS MATERIALIZED (
    SELECT id, source, command_id, code, detail, received_at
    FROM quarantine
    WHERE user_id = %(user_id)s
    UNION
    SELECT
        message.id, message.source, message.command_id, message.code, message.detail, message.received_at
    FROM told
    JOIN quarantine AS message ON message.source = told.source AND message.command_id = told.command_id
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
        of_learner.attempt_code, of_learner.exam_id, effect.payload ->> 'status' AS status, effect.subscriber,
        effect.sequence
    FROM of_learner
    JOIN effects AS effect ON effect.attempt_id = of_learner.id
    UNION ALL
    SELECT
        id, kind, state, created_at, source, command_id, NULL, NULL, payload ->> 'status', subscriber, sequence
    FROM effects
    WHERE user_id = %(user_id)s AND attempt_id IS NULL
), tried AS MATERIALIZED (
    SELECT
        tries.effect_id, tries.number, tries.started_at, tries.finished_at, tries.result, tries.error, owed.kind,
        owed.status, owed.subscriber, owed.attempt_code, owed.exam_id
    FROM owed
    JOIN tries ON tries.effect_id = owed.id
), aimed AS MATERIALIZED (
    SELECT
        target.act_sequence,
        jsonb_agg(
            jsonb_build_object('id', target.effect_id, 'before', target.before, 'after', target.after)
            ORDER BY owed.sequence
        ) AS effects
    FROM owed
    JOIN act_targets AS target ON target.effect_id = owed.id
    GROUP BY target.act_sequence
), entries AS (
    SELECT
        handled_at AS recorded_at, '0:' || lpad(id::text, 20, '0') AS key, handled_at AS at, 'command' AS what,
        jsonb_build_object(
            'source', source, 'id', command_id, 'type', type, 'outcome', outcome, 'code', code, 'detail', detail,
            'exam_id', exam_id, 'to_status', to_status, 'attempt_code', attempt_code, 'external_id', external_id
        ) AS details
    FROM told
    UNION ALL
    SELECT
        received_at, '1:' || lpad(id::text, 20, '0'), received_at, 'quarantined',
        jsonb_build_object(
            'source', source, 'id', command_id, 'code', code, 'detail', detail, 'quarantine_id', id
        )
    FROM suspected
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
            'id', id, 'kind', kind, 'state', state, 'status', status, 'subscriber', subscriber,
            'attempt_code', attempt_code, 'exam_id', exam_id, 'source', source, 'command_id', command_id
        )
    FROM owed
    UNION ALL
    SELECT
        started_at, '6:' || effect_id || lpad(number::text, 10, '0'), started_at, 'try',
        jsonb_build_object(
            'effect_id', effect_id, 'kind', kind, 'status', status, 'subscriber', subscriber, 'number', number,
            'result', result, 'error', error,
            'finished_at', to_char(finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
            'attempt_code', attempt_code
        )
    FROM tried
    UNION ALL
    SELECT
        finished_at, '7:' || effect_id || lpad(number::text, 10, '0'), finished_at, 'mail',
        jsonb_build_object(
            'effect_id', effect_id, 'status', status, 'attempt_code', attempt_code, 'exam_id', exam_id
        )
    FROM tried
    WHERE kind = %(mail)s AND result = 'done'
    UNION ALL
    SELECT
        act.at, '8:' || lpad(act.sequence::text, 20, '0'), act.at, 'act',
        jsonb_build_object(
            'act_id', act.act_id, 'action', act.action, 'actor', act.actor, 'is_claimed', act.is_claimed,
            'via', act.via, 'origin', act.origin, 'reason', act.reason,
            'effects', coalesce((SELECT effects FROM aimed WHERE act_sequence = act.sequence), '[]')
        )
    FROM acts AS act
    WHERE act.sequence = ANY (ARRAY(
        SELECT sequence FROM acts WHERE user_id = %(user_id)s
        UNION
        SELECT act_sequence FROM aimed
    ))
), lost AS (
    SELECT
        least((SELECT min(recorded_at) FROM entries), min(before)) AS recorded_at, '' AS key, max(before) AS at,
        'pruned' AS what,
        jsonb_build_object(
            'before', jsonb_object_agg(
                what, to_char(before AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
            )
        ) AS details
    FROM pruned
    HAVING count(*) > 0
        AND %(after_at)s::timestamptz IS NULL
        AND (
            EXISTS (SELECT FROM entries) OR EXISTS (SELECT FROM learners WHERE user_id = %(user_id)s)
        )
)
SELECT recorded_at, key, at, what, details
FROM (SELECT * FROM lost UNION ALL SELECT * FROM entries) AS everything
WHERE %(after_at)s::timestamptz IS NULL
    OR (recorded_at, key COLLATE "C") > (%(after_at)s::timestamptz, %(after_key)s::text COLLATE "C")
ORDER BY recorded_at, key COLLATE "C"
LIMIT %(limit)s
"""


def read(
    connection: Connection, user_id: str, *, mail_kind: str, after: Position | None, limit: int
) -> Sequence[Entry]:
    """Return a page of what happened to a learner, oldest first. It is empty for nobody's id.

    A message in quarantine is found if it names the learner, or has the source and id of a command of the learner.
    If rows were pruned, the first entry says up to which moment, by table.

    Parameters:
        mail_kind: the kind of the effects that are mails.
        after: entries behind this place only. None for the beginning.
        limit: how many at most.
    """
    values = {
        "after_at": None if after is None else after.recorded_at,
        "after_key": None if after is None else after.key,
        "limit": limit,
    }
    rows = connection.exec_driver_sql(_TIMELINE, {**values, "user_id": user_id, "mail": mail_kind})
    return list(_entries(rows))


def stream(connection: Connection, user_id: str, *, mail_kind: str) -> Iterator[Entry]:
    """Return everything that happened to a learner, as `read` does, and hold only a part of it at a time."""
    whole = {"after_at": None, "after_key": None, "limit": None}
    return _entries(streaming.stream(connection, _TIMELINE, {**whole, "user_id": user_id, "mail": mail_kind}))


def _entries(rows: CursorResult[Any]) -> Iterator[Entry]:
    for row in rows:
        yield Entry(Position(row.recorded_at, row.key), row.at, row.what, row.details)
