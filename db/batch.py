"""The hot path of a batch: one statement begins it, one reads and one writes, however many commands there are.

A session of its own prepares these statements: PostgreSQL takes longer to plan a small batch than to run it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from db import prepared
from db.inbox import Arrival, Key
from db.models import TryResult
from db.recordset import Row, in_hex, recordset
from db.shards import IN_HAND_LOCKS, Renewal

# --- begin -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch whose transaction is fenced."""

    inbox_ids: dict[Key, int]
    """The ids in the inbox of the commands that were never seen."""
    learners: set[str]
    """The learners that are known. They are locked."""


# The fence comes first. The lock on its row keeps a later owner out until the batch has committed, and nothing is
# inserted without it. Then come the inbox and the learners. Each part asks for the part before it, so that
# PostgreSQL takes the locks in this order.
_BEGIN = """
WITH fence AS (
    UPDATE shards
    SET lease_until = clock_timestamp() + %(lease_s)s * interval '1 s'
    WHERE shard = %(shard)s AND epoch = %(epoch)s AND owner = %(owner)s
    RETURNING pg_try_advisory_xact_lock_shared(%(in_hand_lock)s, %(in_hand)s)
), entered AS (
    INSERT INTO inbox (source, command_id, type, fingerprint)
    SELECT source, command_id, type, fingerprint
    FROM json_to_recordset(%(arrivals)s) AS arrival (source text, command_id text, type text, fingerprint bytea)
    WHERE EXISTS (SELECT FROM fence)
    ON CONFLICT DO NOTHING
    RETURNING id, source, command_id
), locked AS (
    SELECT user_id
    FROM learners
    WHERE user_id = ANY (%(user_ids)s::text[])
        AND EXISTS (SELECT FROM fence)
        AND (SELECT count(*) FROM entered) >= 0
    ORDER BY user_id
    FOR NO KEY UPDATE
)
SELECT json_build_object(
    'is_fenced', EXISTS (SELECT FROM fence),
    'entered', (SELECT json_agg(entered) FROM entered),
    'learners', (SELECT json_agg(user_id) FROM locked)
)::text
"""


def begin(
    connection: Connection, renewal: Renewal, arrivals: Sequence[Arrival], user_ids: Collection[str]
) -> Begun | None:
    """Renew the lease, insert the commands that were never seen, and lock learners.

    Returns None when the tenure is over; then nothing was written. A key that another transaction is inserting is
    waited for.

    Parameters:
        renewal: of the shard whose commands they are.
        arrivals: the commands, each key once.
        user_ids: the learners, as for `lock_learners`.
    """
    fence = renewal.fence
    answer = _answer(
        connection,
        _BEGIN,
        {
            "lease_s": renewal.lease_s,
            "shard": fence.shard,
            "epoch": fence.epoch,
            "owner": fence.owner,
            "in_hand_lock": IN_HAND_LOCKS + fence.shard,
            "in_hand": renewal.in_hand,
            "arrivals": recordset([_arrival(one) for one in sorted(arrivals, key=lambda one: one.key)]),
            "user_ids": list(user_ids),
        },
    )
    if not answer["is_fenced"]:
        return None
    inbox_ids = {(one["source"], one["command_id"]): one["id"] for one in answer["entered"] or ()}
    return Begun(inbox_ids=inbox_ids, learners=set(answer["learners"] or ()))


def _arrival(arrival: Arrival) -> Row:
    source, command_id = arrival.key
    return {
        "source": source,
        "command_id": command_id,
        "type": arrival.type,
        "fingerprint": in_hex(arrival.fingerprint),
    }


_LOCK_LEARNERS = """
SELECT user_id
FROM learners
WHERE user_id = ANY (%(user_ids)s::text[])
ORDER BY user_id
FOR NO KEY UPDATE
"""


def lock_learners(connection: Connection, user_ids: Collection[str]) -> set[str]:
    """Lock learners in the order of their ids, and return those that are known.

    This one lock covers all attempts of a learner, also those that do not exist yet, and orders the effects on
    each target. Foreign keys to the row do not wait for it.

    Lock first, then read what belongs to a learner in a second statement: a statement that waits for the lock
    would use a snapshot from before it.
    """
    return set(connection.exec_driver_sql(_LOCK_LEARNERS, {"user_ids": list(user_ids)}).scalars())


# --- read --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What is recorded. Each row has the columns that `_READ` names."""

    learners: set[str]
    """The learners that are known, locked or not."""
    exams: Sequence[Row]
    providers: Mapping[str, str | None]
    """The providers of the courses that are known, by course."""
    attempts: Sequence[Row]
    """The live attempts."""
    cascades: Sequence[Row]
    """The cascades that are owed, oldest first. They are locked."""


# Tables are looked up by arrays: for IN or a join PostgreSQL may read the whole table.
_READ = """
WITH named AS MATERIALIZED (
    SELECT %(course_ids)s::text[]
        || ARRAY(SELECT course_id FROM exams WHERE exam_id = ANY (%(exam_ids)s::text[])) AS course_ids
)
SELECT json_build_object(
    'learners', (SELECT json_agg(user_id) FROM learners WHERE user_id = ANY (%(user_ids)s::text[])),
    'exams', (
        SELECT json_agg(exam)
        FROM (
            SELECT exam_id, course_id, content_id, is_proctored, is_practice_exam, is_active
            FROM exams
            WHERE course_id = ANY ((SELECT course_ids FROM named)::text[])
        ) AS exam
    ),
    'providers', (
        SELECT json_object_agg(course_id, provider)
        FROM courses
        WHERE course_id = ANY ((SELECT course_ids FROM named)::text[])
    ),
    'attempts', (
        SELECT json_agg(attempt)
        FROM (
            SELECT
                id, exam_id, user_id, status, taking_as_proctored, is_sample_attempt, external_id, started_at,
                completed_at, credit_owed, version, created_at
            FROM attempts
            WHERE user_id = ANY (%(user_ids)s::text[]) AND removed_at IS NULL
        ) AS attempt
    ),
    'cascades', (
        SELECT json_agg(cascade)
        FROM (
            SELECT
                id, payload, source, command_id, CASE WHEN state = 'running' THEN tries END AS running_try
            FROM effects
            WHERE kind = 'cascade_decline'
                AND state IN ('pending', 'running')
                AND user_id = ANY (%(user_ids)s::text[])
            ORDER BY sequence
            FOR UPDATE
        ) AS cascade
    )
)::text
"""


def read(
    connection: Connection,
    user_ids: Collection[str],
    exam_ids: Collection[str],
    course_ids: Collection[str],
) -> Found:
    """Read what the commands of some learners may look at. The learners must be locked.

    Parameters:
        user_ids: the learners.
        exam_ids: the exams. All other exams of their courses are read with them.
        course_ids: more courses.
    """
    answer = _answer(
        connection,
        _READ,
        {"user_ids": list(user_ids), "exam_ids": list(exam_ids), "course_ids": list(course_ids)},
    )
    return Found(
        learners=set(answer["learners"] or ()),
        exams=answer["exams"] or (),
        providers=answer["providers"] or {},
        attempts=answer["attempts"] or (),
        cascades=answer["cascades"] or (),
    )


def _answer(connection: Connection, statement: str, values: Row) -> dict[str, Any]:
    """The one JSON object that a statement returns. A set in it is null when it is empty."""
    answer: dict[str, Any] = orjson.loads(prepared.execute(connection, statement, values).scalar_one())
    return answer


# --- write -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changes:
    """The rows that a batch writes to each table, each primary key once, and the cascades that it carries out.

    Rows of one table are written in the order given: the sequence numbers of effects grow in that order, and a
    removed attempt makes room for the next.
    """

    courses: Collection[Row] = ()
    exams: Collection[Row] = ()
    learners: Collection[Row] = ()
    attempts: Collection[Row] = ()
    transitions: Collection[Row] = ()
    effects: Collection[Row] = ()
    outcomes: Collection[Row] = ()
    finished: Collection[UUID] = ()
    """The ids of the cascades that are carried out, whether or not a worker has claimed them."""


# The parts of the statement, by table. A batch uses the parts for which it has rows, because PostgreSQL would plan
# the other parts, too.
_INSERTS = {
    "courses": """
write_courses AS (
    INSERT INTO courses (course_id, name, provider, gives_credit)
    SELECT * FROM json_to_recordset(%(courses)s)
        AS course (course_id text, name text, provider text, gives_credit bool)
    ON CONFLICT (course_id) DO UPDATE
    SET name = excluded.name, provider = excluded.provider, gives_credit = excluded.gives_credit
)""",
    "exams": """
write_exams AS (
    INSERT INTO exams (
        exam_id, course_id, content_id, exam_name, is_proctored, is_practice_exam, is_active, time_limit_mins
    )
    SELECT * FROM json_to_recordset(%(exams)s) AS exam (
        exam_id text, course_id text, content_id text, exam_name text, is_proctored bool, is_practice_exam bool,
        is_active bool, time_limit_mins int
    )
    ON CONFLICT (exam_id) DO UPDATE
    SET course_id = excluded.course_id,
        content_id = excluded.content_id,
        exam_name = excluded.exam_name,
        is_proctored = excluded.is_proctored,
        is_practice_exam = excluded.is_practice_exam,
        is_active = excluded.is_active,
        time_limit_mins = excluded.time_limit_mins
)""",
    "learners": """
write_learners AS (
    INSERT INTO learners (user_id, username, email, full_name, language, time_zone)
    SELECT * FROM json_to_recordset(%(learners)s) AS learner (
        user_id text, username text, email text, full_name text, language text, time_zone text
    )
    ON CONFLICT (user_id) DO UPDATE
    SET username = excluded.username,
        email = excluded.email,
        full_name = excluded.full_name,
        language = excluded.language,
        time_zone = excluded.time_zone
)""",
    "attempts": """
write_attempts AS (
    INSERT INTO attempts (
        id, exam_id, user_id, status, taking_as_proctored, is_sample_attempt, external_id, started_at, completed_at,
        credit_owed, version, created_at, removed_at
    )
    SELECT * FROM json_to_recordset(%(attempts)s) AS attempt (
        id uuid, exam_id text, user_id text, status text, taking_as_proctored bool, is_sample_attempt bool,
        external_id text, started_at timestamptz, completed_at timestamptz, credit_owed bool, version int,
        created_at timestamptz, removed_at timestamptz
    )
    ON CONFLICT (id) DO UPDATE
    SET status = excluded.status,
        taking_as_proctored = excluded.taking_as_proctored,
        is_sample_attempt = excluded.is_sample_attempt,
        external_id = excluded.external_id,
        started_at = excluded.started_at,
        completed_at = excluded.completed_at,
        credit_owed = excluded.credit_owed,
        version = excluded.version,
        removed_at = excluded.removed_at
)""",
    "transitions": """
write_transitions AS (
    INSERT INTO transitions (
        id, attempt_id, version, from_status, to_status, at, source, command_id, effect_id
    )
    SELECT * FROM json_to_recordset(%(transitions)s) AS transition (
        id uuid, attempt_id uuid, version int, from_status text, to_status text, at timestamptz, source text,
        command_id text, effect_id uuid
    )
)""",
    "effects": """
write_effects AS (
    INSERT INTO effects (
        id, kind, state, attempt_id, user_id, target, payload, source, command_id, done_at
    )
    SELECT * FROM json_to_recordset(%(effects)s) AS effect (
        id uuid, kind text, state text, attempt_id uuid, user_id text, target text, payload jsonb, source text,
        command_id text, done_at timestamptz
    )
)""",
    "outcomes": """
write_outcomes AS (
    INSERT INTO outcomes (inbox_id, outcome, code, detail, handled_at)
    SELECT * FROM json_to_recordset(%(outcomes)s)
        AS outcome (inbox_id bigint, outcome text, code text, detail text, handled_at timestamptz)
)""",
}

_FINISH = """
finish_effects AS (
    UPDATE effects
    SET state = 'done', done_at = clock_timestamp(), lease_until = NULL, offered_until = NULL, last_error = NULL
    WHERE id = ANY (%(finished)s::uuid[])
), finish_tries AS (
    UPDATE tries
    SET result = %(result)s, finished_at = clock_timestamp()
    WHERE effect_id = ANY (%(finished)s::uuid[]) AND result IS NULL
)"""

_WAKE_RELAYS = "SELECT pg_notify('invigilator_effects', '')"


def write(connection: Connection, changes: Changes, result: TryResult = TryResult.FOLDED) -> None:
    """Write what a batch changes, and wake the relays if it owes effects. Writes nothing if nothing has changed.

    Foreign keys are checked when all of it is there.

    Parameters:
        changes: the rows.
        result: of the tries of the workers that have claimed finished cascades.
    """
    rows = {table: some for table in _INSERTS if (some := getattr(changes, table))}
    if not rows and not changes.finished:
        return
    values: dict[str, Any] = {table: recordset(some) for table, some in rows.items()}
    if changes.finished:
        values |= {"finished": list(changes.finished), "result": result.value}
    prepared.execute(connection, _write_statement(tuple(rows), bool(changes.finished)), values)


@cache
def _write_statement(tables: Sequence[str], finishes: bool) -> str:
    parts = [_INSERTS[table] for table in tables]
    if finishes:
        parts.append(_FINISH)
    last = _WAKE_RELAYS if "effects" in tables else "SELECT 1"
    return " ".join(["WITH", ", ".join(parts), last])
