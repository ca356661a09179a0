"""The hot path of a batch: one statement begins it, one reads and one writes, however many commands there are.

A session of its own prepares these statements: PostgreSQL takes longer to plan a small batch than to run it. They
travel in two messages (`db.round_trips`): the beginning with the reading, and the writing with COMMIT.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from db import prepared, totals
from db.event_log import INSERT_EVENTS
from db.inbox import Arrival, Key
from db.recordset import Row, in_hex, recordset
from db.shards import IN_HAND_LOCKS, Renewal
from db.states import TryResult
from db.wake import EFFECTS_CHANNEL, EVENTS_CHANNEL, notification

# --- begin -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch whose transaction is fenced."""

    inbox_ids: dict[Key, int]
    """The ids in the inbox of the commands that were never seen."""
    found: "Found"
    """What is recorded of what the commands look at."""
    now: datetime
    """The database's clock."""


# The fence comes first. The lock on its row keeps a later owner out until the batch has committed, and nothing is
# inserted without it. Then come the inbox, the learners, and the courses and exams that are described. Each part
# asks for the part before it, so that PostgreSQL takes the locks in this order.
#
# Any shard may describe a course or an exam, so it is locked before it is read. Its row may not be there yet, so
# the lock is an advisory one.
#
# What is read must be from after the locks, so another statement reads. A setting of the transaction brings it the
# answer of this one, because both travel in one message, which has one answer.
_BEGIN = """
WITH fence AS (
    UPDATE shards
    SET lease_until = clock_timestamp() + %(lease_s)s * interval '1 s'
    WHERE shard = %(shard)s AND epoch = %(epoch)s AND owner = %(owner)s
    RETURNING pg_try_advisory_xact_lock_shared(%(in_hand_lock)s, %(in_hand)s)
), entered AS (
    INSERT INTO inbox (source, command_id, type, fingerprint, sent_defaults)
    SELECT source, command_id, type, fingerprint, sent_defaults
    FROM json_to_recordset(%(arrivals)s) AS arrival (
        source text, command_id text, type text, fingerprint bytea, sent_defaults text
    )
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
), locked_descriptions AS (
    SELECT pg_advisory_xact_lock(key)
    FROM unnest(%(descriptions)s::bigint[]) AS key
    WHERE EXISTS (SELECT FROM fence) AND (SELECT count(*) FROM locked) >= 0
)
SELECT set_config('invigilator.locked', json_build_object(
    'is_fenced', EXISTS (SELECT FROM fence),
    'entered', (SELECT json_agg(entered) FROM entered),
    'learners', (SELECT json_agg(user_id) FROM locked),
    'descriptions', (SELECT count(*) FROM locked_descriptions),
    'now', clock_timestamp()
)::text, true)
"""


def begin(
    connection: Connection,
    renewal: Renewal,
    arrivals: Sequence[Arrival],
    user_ids: Collection[str],
    needs: "Needs",
) -> Begun | None:
    """Renew the lease, insert the commands that were never seen, lock what they are about, and read it.

    Returns None when the tenure is over; then nothing was written. A key that another transaction is inserting is
    waited for.

    Parameters:
        renewal: of the shard whose commands they are.
        arrivals: the commands, each key once.
        user_ids: the learners, as for `lock_and_read`.
        needs: what the commands look at. The courses and exams that are described are locked, too.
    """
    fence = renewal.fence
    described = [("courses", one) for one in needs.courses] + [("exams", one) for one in needs.exams]
    prepared.execute_later(
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
            "descriptions": sorted({_lock_key(*one) for one in described}),
        },
    )
    locked, found = _read(connection, needs)
    if not locked["is_fenced"]:
        return None
    return Begun(
        inbox_ids={(one["source"], one["command_id"]): one["id"] for one in locked["entered"] or ()},
        found=_all_locked(connection, locked, found, needs),
        now=datetime.fromisoformat(locked["now"]),
    )


def _lock_key(table: str, row_id: str) -> int:
    # Two rows with one key only wait for each other.
    digest = hashlib.blake2b(f"{table} {row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _arrival(arrival: Arrival) -> Row:
    source, command_id = arrival.key
    return {
        "source": source,
        "command_id": command_id,
        "type": arrival.type,
        "fingerprint": in_hex(arrival.fingerprint.digest),
        "sent_defaults": arrival.fingerprint.sent_defaults,
    }


# --- read --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Needs:
    """What the commands of a batch look at, and so what is read before they are applied.

    Parameters:
        user_ids: learners whose attempts they look at. A command belongs to one of them, so they are locked.
        exam_ids: exams. All other exams of their courses are read, too.
        course_ids: courses whose exams another command of the batch may look at.
        attempt_codes: codes that new attempts are to have.
        requesters: those who ask for a removal, who may be learners.
        courses: courses that are described.
        exams: exams that are described.
        learners: learners that are described.
    """

    user_ids: set[str] = field(default_factory=set)
    exam_ids: set[str] = field(default_factory=set)
    course_ids: set[str] = field(default_factory=set)
    attempt_codes: set[str] = field(default_factory=set)
    requesters: set[str] = field(default_factory=set)
    courses: set[str] = field(default_factory=set)
    exams: set[str] = field(default_factory=set)
    learners: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Found:
    """What is recorded. Each row has the columns that `_READ` names."""

    learners: set[str]
    """The learners that are known. They are locked."""
    exams: Sequence[Row]
    providers: Mapping[str, str | None]
    """The providers of the courses that are known, by course."""
    attempts: Sequence[Row]
    """The live attempts."""
    cascades: Sequence[Row]
    """The cascades that are owed, oldest first. They are locked."""
    attempt_codes: set[str]
    """Those of the codes that attempts have already."""
    requesters: set[str]
    """Those of the requesters who are known learners."""
    has_subscribers: bool
    """Whether anybody subscribes to events."""
    described: Mapping[str, Sequence[Row]]
    """The whole rows of what is described, by table: courses, exams, learners."""


# Tables are looked up by arrays: for IN or a join PostgreSQL may read the whole table.
#
# An older release has stored that credit was owed for an attempt, but not under which names. They are those of its
# effects, and the present one, because the effects may have been pruned. OFFSET 0 keeps PostgreSQL from looking the
# effects up by their kind instead.
#
# The first column is the answer of the statement that has taken the locks.
_READ = """
WITH named AS MATERIALIZED (
    SELECT %(course_ids)s::text[]
        || ARRAY(SELECT course_id FROM exams WHERE exam_id = ANY (%(exam_ids)s::text[])) AS course_ids
)
SELECT current_setting('invigilator.locked') AS locked, json_build_object(
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
                id, exam_id, user_id, attempt_code, status, taking_as_proctored, is_sample_attempt, external_id,
                external_ids, started_at, completed_at, credit_owed, version, created_at,
                (
                    SELECT at
                    FROM transitions
                    WHERE attempt_id = attempts.id AND version = attempts.version
                ) AS changed_at,
                CASE
                    WHEN credit_owed AND credit_told IS NULL THEN (
                        SELECT jsonb_agg(jsonb_build_array(course_id, content_id))
                        FROM (
                            SELECT payload ->> 'course_id' AS course_id, payload ->> 'content_id' AS content_id
                            FROM (
                                SELECT kind, payload FROM effects WHERE attempt_id = attempts.id OFFSET 0
                            ) AS of_attempt
                            WHERE kind = 'set_credit_status'
                            UNION
                            SELECT course_id, content_id
                            FROM exams
                            WHERE exam_id = attempts.exam_id
                        ) AS told
                    )
                    ELSE credit_told
                END AS credit_told
            FROM attempts
            WHERE user_id = ANY (%(user_ids)s::text[]) AND removed_at IS NULL
        ) AS attempt
    ),
    'cascades', (
        SELECT json_agg(cascade)
        FROM (
            SELECT
                id, payload, source, command_id, traceparent, tries, failure_told,
                CASE WHEN state = 'running' THEN tries END AS running_try,
                (
                    SELECT coalesce(attempt_code, attempts.id::text)
                    FROM attempts
                    WHERE attempts.id = effects.attempt_id
                ) AS attempt_code
            FROM effects
            WHERE kind = 'cascade_decline'
                AND state IN ('pending', 'running')
                AND user_id = ANY (%(user_ids)s::text[])
            ORDER BY sequence
            FOR UPDATE OF effects
        ) AS cascade
    ),
    'attempt_codes', (
        SELECT json_agg(coalesce(attempt_code, id::text))
        FROM attempts
        WHERE coalesce(attempt_code, id::text) = ANY (%(attempt_codes)s::text[])
    ),
    'requesters', (SELECT json_agg(user_id) FROM learners WHERE user_id = ANY (%(requesters)s::text[])),
    'has_subscribers', EXISTS (SELECT FROM subscribers),
    'described', json_build_object(
        'courses', (SELECT json_agg(courses) FROM courses WHERE course_id = ANY (%(courses)s::text[])),
        'exams', (SELECT json_agg(exams) FROM exams WHERE exam_id = ANY (%(exams)s::text[])),
        'learners', (SELECT json_agg(learners) FROM learners WHERE user_id = ANY (%(learners)s::text[]))
    )
)::text AS found
"""

_LOCK_LEARNERS = """
SELECT set_config('invigilator.locked', json_build_object('learners', (
    SELECT json_agg(user_id)
    FROM (
        SELECT user_id
        FROM learners
        WHERE user_id = ANY (%(user_ids)s::text[])
        ORDER BY user_id
        FOR NO KEY UPDATE
    ) AS locked
))::text, true)
"""


def lock_and_read(connection: Connection, user_ids: Collection[str], needs: Needs) -> Found:
    """Lock learners in the order of their ids, and then read.

    This one lock covers all attempts of a learner, also those that do not exist yet, and orders the effects on
    each target. Foreign keys to the row do not wait for it.

    Lock first, then read what belongs to a learner in a second statement: a statement that waits for the lock
    would use a snapshot from before it.

    Parameters:
        user_ids: the learners to lock.
        needs: what to read. Its learners are locked in any case.
    """
    prepared.execute_later(connection, _LOCK_LEARNERS, {"user_ids": list(user_ids)})
    locked, found = _read(connection, needs)
    return _all_locked(connection, locked, found, needs)


def _read(connection: Connection, needs: Needs) -> tuple[dict[str, Any], Found]:
    """Return the answer of the statement before, which has taken the locks, and what was found."""
    wanted = {one.name: list(getattr(needs, one.name)) for one in fields(needs)}
    row = prepared.execute(connection, _READ, wanted).one()
    return orjson.loads(row.locked), _found(orjson.loads(row.found))


def _all_locked(connection: Connection, locked: Mapping[str, Any], found: Found, needs: Needs) -> Found:
    """Return what was found, or find it again if another shard has added a learner since the locks were taken."""
    if found.learners <= set(locked["learners"] or ()):
        return found
    return lock_and_read(connection, needs.user_ids, needs)


def _found(answer: Row) -> Found:
    """What was read. PostgreSQL returns null for an empty list."""
    return Found(
        learners=set(answer["learners"] or ()),
        exams=answer["exams"] or (),
        providers=answer["providers"] or {},
        attempts=answer["attempts"] or (),
        cascades=answer["cascades"] or (),
        attempt_codes=set(answer["attempt_codes"] or ()),
        requesters=set(answer["requesters"] or ()),
        has_subscribers=answer["has_subscribers"],
        described={table: rows or () for table, rows in answer["described"].items()},
    )


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
    events: Collection[Row] = ()
    finished: Collection[UUID] = ()
    """The ids of the cascades that are carried out, whether or not a worker has claimed them."""
    counts: Mapping[totals.Key, int] = field(default_factory=dict)
    """What is added to the totals."""


# The parts of the statement, by table. A batch uses the parts for which it has rows, because PostgreSQL would plan
# the other parts, too.
_INSERTS = {
    "courses": """
write_courses AS (
    INSERT INTO courses (course_id, name, provider, gives_credit, described_at)
    SELECT * FROM json_to_recordset(%(courses)s) AS course (
        course_id text, name text, provider text, gives_credit bool, described_at timestamptz
    )
    ON CONFLICT (course_id) DO UPDATE
    SET name = excluded.name,
        provider = excluded.provider,
        gives_credit = excluded.gives_credit,
        described_at = excluded.described_at
)""",
    "exams": """
write_exams AS (
    INSERT INTO exams (
        exam_id, course_id, content_id, exam_name, is_proctored, is_practice_exam, is_active, time_limit_mins,
        described_at
    )
    SELECT * FROM json_to_recordset(%(exams)s) AS exam (
        exam_id text, course_id text, content_id text, exam_name text, is_proctored bool, is_practice_exam bool,
        is_active bool, time_limit_mins int, described_at timestamptz
    )
    ON CONFLICT (exam_id) DO UPDATE
    SET course_id = excluded.course_id,
        content_id = excluded.content_id,
        exam_name = excluded.exam_name,
        is_proctored = excluded.is_proctored,
        is_practice_exam = excluded.is_practice_exam,
        is_active = excluded.is_active,
        time_limit_mins = excluded.time_limit_mins,
        described_at = excluded.described_at
)""",
    "learners": """
write_learners AS (
    INSERT INTO learners (user_id, username, email, full_name, language, time_zone, described_at)
    SELECT * FROM json_to_recordset(%(learners)s) AS learner (
        user_id text, username text, email text, full_name text, language text, time_zone text,
        described_at timestamptz
    )
    ON CONFLICT (user_id) DO UPDATE
    SET username = excluded.username,
        email = excluded.email,
        full_name = excluded.full_name,
        language = excluded.language,
        time_zone = excluded.time_zone,
        described_at = excluded.described_at
)""",
    "attempts": """
write_attempts AS (
    INSERT INTO attempts (
        id, exam_id, user_id, attempt_code, status, taking_as_proctored, is_sample_attempt, external_id,
        external_ids, started_at, completed_at, credit_owed, credit_told, version, created_at, removed_at
    )
    SELECT * FROM json_to_recordset(%(attempts)s) AS attempt (
        id uuid, exam_id text, user_id text, attempt_code text, status text, taking_as_proctored bool,
        is_sample_attempt bool, external_id text, external_ids text[], started_at timestamptz,
        completed_at timestamptz, credit_owed bool, credit_told jsonb, version int, created_at timestamptz,
        removed_at timestamptz
    )
    ON CONFLICT (id) DO UPDATE
    SET status = excluded.status,
        taking_as_proctored = excluded.taking_as_proctored,
        is_sample_attempt = excluded.is_sample_attempt,
        external_id = excluded.external_id,
        external_ids = excluded.external_ids,
        started_at = excluded.started_at,
        completed_at = excluded.completed_at,
        credit_owed = excluded.credit_owed,
        credit_told = excluded.credit_told,
        version = excluded.version,
        removed_at = excluded.removed_at
)""",
    "transitions": """
write_transitions AS (
    INSERT INTO transitions (
        id, attempt_id, version, from_status, to_status, at, recorded_at, source, command_id, effect_id
    )
    SELECT * FROM json_to_recordset(%(transitions)s) AS transition (
        id uuid, attempt_id uuid, version int, from_status text, to_status text, at timestamptz,
        recorded_at timestamptz, source text, command_id text, effect_id uuid
    )
)""",
    "effects": """
write_effects AS (
    INSERT INTO effects (
        id, kind, state, attempt_id, user_id, target, order_key, payload, source, command_id, traceparent, done_at
    )
    SELECT * FROM json_to_recordset(%(effects)s) AS effect (
        id uuid, kind text, state text, attempt_id uuid, user_id text, target text, order_key text, payload jsonb,
        source text, command_id text, traceparent text, done_at timestamptz
    )
)""",
    "outcomes": """
write_outcomes AS (
    INSERT INTO outcomes (
        inbox_id, outcome, code, detail, handled_at, user_id, exam_id, to_status, attempt_code, external_id
    )
    SELECT * FROM json_to_recordset(%(outcomes)s) AS outcome (
        inbox_id bigint, outcome text, code text, detail text, handled_at timestamptz, user_id text, exam_id text,
        to_status text, attempt_code text, external_id text
    )
)""",
    "events": f"write_events AS ({INSERT_EVENTS})",
    "counts": f"write_counts AS ({totals.ADD})",
}

WAKES = {"effects": notification(EFFECTS_CHANNEL), "events": notification(EVENTS_CHANNEL)}
"""What the rows of a table ask of the relays, when they are committed."""

_FINISH = """
finish_effects AS (
    UPDATE effects
    SET state = 'done', done_at = clock_timestamp(), lease_until = NULL, offered_until = NULL, last_error = NULL,
        cause = NULL, failed_at = NULL
    WHERE id = ANY (%(finished)s::uuid[])
), finish_tries AS (
    UPDATE tries
    SET result = %(result)s, finished_at = clock_timestamp()
    WHERE effect_id = ANY (%(finished)s::uuid[]) AND result IS NULL
)"""


def write(connection: Connection, changes: Changes, result: TryResult = TryResult.FOLDED) -> None:
    """Write what a batch changes, and wake the relays. Writes nothing if nothing has changed.

    Foreign keys are checked when all of it is there.

    Parameters:
        changes: the rows.
        result: of the tries of the workers that have claimed finished cascades.
    """
    rows = {table: some for table in _INSERTS if (some := getattr(changes, table))}
    if not rows and not changes.finished:
        return
    values: dict[str, Any] = {table: recordset(some) for table, some in rows.items() if table != "counts"}
    values |= totals.parameters(changes.counts)
    if changes.finished:
        values |= {"finished": list(changes.finished), "result": result.value}
    prepared.execute_later(connection, _write_statement(tuple(rows), bool(changes.finished)), values)


@cache
def _write_statement(tables: Sequence[str], finishes: bool) -> str:
    parts = [_INSERTS[table] for table in tables]
    if finishes:
        parts.append(_FINISH)
    notices = [WAKES[table] for table in tables if table in WAKES]
    return " ".join(["WITH", ", ".join(parts), f"SELECT {', '.join(notices) or '1'}"])
