"""Fills a database as after years of use: each attempt has four transitions and two effects that are done.

Afterwards a fifth more effects pass through their states in small transactions, as the workers lead them, and
nothing is vacuumed but by autovacuum, which is left to its defaults.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.engines import connect

ATTEMPTS = 5_000_000

_NUMBERED = """
    SELECT a, a / 4 AS u, a / 80 AS c, a / 80 * 4 + a % 4 AS e,
        now() - interval '200 days' * (1 - 1.0 * a / {attempts}) AS at
    FROM generate_series(0, {attempts} - 1) AS a
"""
_UUID = "(lpad(to_hex({}), 12, '0') || lpad(to_hex({}), 20, '0'))::uuid"

# Attempt number a belongs to learner a / 4 and to exam a % 4 of course a / 80. Ids contain these numbers, and times
# increase with them, as in production.
_FILL = {
    "courses": "INSERT INTO courses (course_id, name) SELECT 'c' || c, 'Course ' || c "
    "FROM generate_series(0, {attempts} / 80) AS c",
    "exams": """INSERT INTO exams
        (exam_id, course_id, content_id, exam_name, is_proctored, is_practice_exam, is_active)
    SELECT 'e' || e, 'c' || e / 4, 'k' || e, 'Exam ' || e, true, false, true
    FROM generate_series(0, {attempts} / 20) AS e""",
    "learners": """INSERT INTO learners (user_id, username, email, full_name)
    SELECT 'u' || u, 'user' || u, 'u' || u || '@example.org', 'Somebody ' || u
    FROM generate_series(0, {attempts} / 4) AS u""",
    "attempts": """INSERT INTO attempts (id, exam_id, user_id, status, taking_as_proctored, is_sample_attempt,
        started_at, completed_at, credit_owed, version, created_at)
    SELECT {attempt}, 'e' || e, 'u' || u, 'verified', true, false, at, at, true, 4, at FROM ({numbered}) AS n""",
    "transitions": """INSERT INTO transitions
        (id, attempt_id, version, from_status, to_status, at, source, command_id)
    SELECT {transition}, {attempt}, v, (ARRAY[NULL, 'created', 'started', 'submitted'])[v],
        (ARRAY['created', 'started', 'submitted', 'verified'])[v],
        at + v * interval '1 h', '/lms', 'a' || a || '-' || v
    FROM ({numbered}) AS n CROSS JOIN generate_series(1, 4) AS v""",
    "inbox": """INSERT INTO inbox (source, command_id, type, fingerprint)
    SELECT '/lms', 'a' || a || '-' || v, 'exam.attempt.update-status.v1', sha256(('a' || a || '-' || v)::bytea)
    FROM ({numbered}) AS n CROSS JOIN generate_series(1, 4) AS v""",
    "outcomes": """INSERT INTO outcomes (inbox_id, outcome, handled_at)
    SELECT id, 'applied', now() - interval '200 days' * (1 - 0.25 * id / {attempts}) FROM inbox""",
    "effects": """INSERT INTO effects (id, kind, state, attempt_id, user_id, target, payload, source, command_id,
        tries, created_at, due_at, retrying_since, done_at)
    SELECT {effect}, (ARRAY['set_credit_status', 'send_status_email'])[k], 'done', {attempt}, 'u' || u,
        CASE WHEN k = 1 THEN 'credit:u' || u || '/c' || c || '/k' || e END,
        jsonb_build_object('exam_id', 'e' || e, 'user_id', 'u' || u, 'course_id', 'c' || c, 'content_id', 'k' || e,
            'status', 'verified', 'requested_by', NULL),
        '/lms', 'a' || a || '-4', 1, at, at, at, at
    FROM ({numbered}) AS n CROSS JOIN generate_series(1, 2) AS k""",
    "tries": """INSERT INTO tries (effect_id, number, started_at, finished_at, result)
    SELECT id, 1, created_at, done_at, 'done' FROM effects""",
}
_PLAIN_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
JOIN pg_class ON pg_class.oid = indrelid
WHERE relnamespace = 'public'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""


MORE_PER_ATTEMPT = 0.4
"""How many effects pass through their states afterwards: two million of five million attempts."""
AT_ONCE = 100
"""The number of effects in one of these transactions."""

# One more effect for an attempt: it is owed, offered, claimed and done. Each statement is a transaction.
_PASS = (
    """INSERT INTO effects (id, kind, state, attempt_id, user_id, target, payload, source, command_id)
    SELECT {effect}, 'set_credit_status', 'pending', {attempt}, 'u' || u,
        'credit:u' || u || '/c' || c || '/k' || e,
        jsonb_build_object('exam_id', 'e' || e, 'user_id', 'u' || u, 'course_id', 'c' || c,
            'content_id', 'k' || e, 'status', 'verified', 'requested_by', NULL),
        '/lms', 'a' || a || '-4'
    FROM (SELECT a, a / 4 AS u, a / 80 AS c, a / 80 * 4 + a %% 4 AS e
        FROM generate_series(%(first)s, %(last)s) AS a) AS n""",
    "UPDATE effects SET offered_until = now() + interval '1 min' WHERE id = ANY({ids})",
    """WITH claimed AS (
        UPDATE effects SET state = 'running', tries = 1, lease_until = now() + interval '1 min',
            retrying_since = now()
        WHERE id = ANY({ids}) RETURNING id
    )
    INSERT INTO tries (effect_id, number, started_at) SELECT id, 1, now() FROM claimed""",
    """WITH done AS (
        UPDATE effects SET state = 'done', lease_until = NULL, done_at = now() WHERE id = ANY({ids}) RETURNING id
    )
    UPDATE tries SET finished_at = now(), result = 'done' FROM done WHERE effect_id = done.id""",
)
_IDS = "ARRAY(SELECT {effect} FROM generate_series(%(first)s, %(last)s) AS a)"


def fill(url: str, attempts: int, say: Callable[[str], None]) -> None:
    """Fill a migrated, empty database.

    To be fast, it skips the checks of foreign keys and builds the indexes afterwards.

    Parameters:
        url: the URL of the database.
        attempts: the number of attempts.
        say: prints a line of progress.
    """
    values = {
        "attempts": attempts,
        "numbered": _NUMBERED.format(attempts=attempts),
        "attempt": _UUID.format("a", "0"),
        "transition": _UUID.format("a", "v"),
        "effect": _UUID.format("a", "k + 16"),
    }
    connection = connect(url)
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("SET maintenance_work_mem = '1GB'")
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(_PLAIN_INDEXES)
        indexes = cursor.fetchall()
        for name, _ in indexes:
            cursor.execute(f"DROP INDEX {name}")
        for table, statement in _FILL.items():
            _timed(cursor, statement.format(**values), f"filling {table}", say)
        for name, definition in indexes:
            _timed(cursor, definition, f"building {name}", say)
        _timed(cursor, "VACUUM (ANALYZE)", "vacuuming", say)
        cursor.execute("CHECKPOINT")
        began = time.monotonic()
        _pass_more(cursor, round(attempts * MORE_PER_ATTEMPT))
        say(f"more effects: {time.monotonic() - began:.0f} s")
    connection.close()


def _pass_more(cursor: Any, number: int) -> None:
    effect, attempt = _UUID.format("a", "32"), _UUID.format("a", "0")
    ids = _IDS.format(effect=effect)
    statements = [one.format(effect=effect, attempt=attempt, ids=ids) for one in _PASS]
    cursor.execute("RESET ALL")
    cursor.execute("SET synchronous_commit = off")
    for first in range(0, number, AT_ONCE):
        for statement in statements:
            cursor.execute(statement, {"first": first, "last": min(first + AT_ONCE, number) - 1})


def _timed(cursor: Any, statement: str, what: str, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    cursor.execute(statement)
    say(f"{what}: {time.monotonic() - began:.0f} s")
