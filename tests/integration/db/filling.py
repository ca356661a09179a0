"""A database after a long time: attempts with their history, finished effects, and the few that are still owed.

At scale 1: 20,000 attempts, 200,000 finished effects. Everything else grows with them, except what is owed,
what failed, and the quarantine, which stay small.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, text

ATTEMPTS = 20_000
DAYS = 200
"""How far back the oldest goes."""
EXAMS_OF_A_COURSE = 4
LEARNERS_OF_A_COURSE = 5
FEWEST_COURSES = 5_000
"""So that reading all exams does not pay at scale 1 either."""
TABLES = (
    "courses",
    "exams",
    "learners",
    "attempts",
    "transitions",
    "effects",
    "tries",
    "inbox",
    "outcomes",
    "quarantine",
)


@dataclass(frozen=True, slots=True)
class Filled:
    """What there is, by number: learner u takes the exams 4·c … 4·c + 3 of the course c = u mod courses."""

    attempts: int

    @property
    def learners(self) -> int:
        return self.attempts // EXAMS_OF_A_COURSE

    @property
    def courses(self) -> int:
        return max(FEWEST_COURSES, self.learners // LEARNERS_OF_A_COURSE)

    def user(self, number: int) -> str:
        return f"u{number}"

    def exam(self, user: int, number: int) -> str:
        return f"e{user % self.courses * EXAMS_OF_A_COURSE + number}"

    def course(self, user: int) -> str:
        return f"c{user % self.courses}"


def _each_attempt(times: int = 1) -> str:
    """Select each attempt a so many times, with k = 0, 1, ...

    Attempt a: learner a / 4, exam a % 4 of their course. Times go up with the numbers, as they do in production.
    Rows come in this order from one series, because sorting them took longer than making them.
    """
    return f"""
        SELECT a, k, a / 4 AS u, a / 4 % :courses AS c, a / 4 % :courses * 4 + a % 4 AS e,
            now() - :days * interval '1 day' * (1 - a / CAST(:attempts AS float8)) AS at
        FROM (
            SELECT n / {times} AS a, n % {times} AS k FROM generate_series(0, :attempts * {times} - 1) AS n
        ) AS numbered
    """


_UUID = "(lpad(to_hex({}), 12, '0') || lpad(to_hex({}), 20, '0'))::uuid"
_PAYLOAD = """
    jsonb_build_object('exam_id', 'e' || e, 'user_id', 'u' || u, 'course_id', 'c' || c, 'content_id', 'k' || e,
        'status', 'submitted', 'requested_by', NULL)
"""
_ORDER_KEY = f"'mail:' || {_UUID.format('a', '0')}"
_COLUMNS = "id, kind, state, attempt_id, user_id, target, order_key, payload, source, command_id"

FILL = (
    "INSERT INTO courses SELECT 'c' || c, 'Course ' || c, NULL FROM generate_series(0, :courses - 1) AS c",
    """INSERT INTO exams SELECT 'e' || e, 'c' || e / 4, 'k' || e, 'Exam ' || e, true, false, true, NULL
    FROM generate_series(0, :courses * 4 - 1) AS e""",
    """INSERT INTO learners SELECT 'u' || u, 'user' || u, 'u' || u || '@example.org', 'Somebody ' || u
    FROM generate_series(0, :learners - 1) AS u""",
    f"""INSERT INTO attempts SELECT {_UUID.format("a", "0")}, 'e' || e, 'u' || u,
        CASE WHEN a % 5 = 0 THEN 'submitted' WHEN a % 97 = 0 THEN 'started' ELSE 'verified' END,
        true, false, NULL, at, at, true, 4, at, CASE WHEN a % 20 = 7 THEN at + interval '1 day' END
    FROM ({_each_attempt()}) AS n""",
    f"""INSERT INTO transitions SELECT {_UUID.format("a", "k + 1")}, {_UUID.format("a", "0")}, k + 1,
        (ARRAY[NULL, 'created', 'started', 'submitted'])[k + 1],
        (ARRAY['created', 'started', 'submitted', 'verified'])[k + 1],
        at + (k + 1) * interval '1 h', '/lms', 'a' || a || '-' || k + 1, NULL
    FROM ({_each_attempt(4)}) AS n""",
    f"""INSERT INTO inbox (source, command_id, type, fingerprint)
    SELECT '/lms', 'a' || a || '-' || k + 1, 'exam.attempt.update-status.v1',
        sha256(('a' || a || '-' || k + 1)::bytea)
    FROM ({_each_attempt(4)}) AS n""",
    """INSERT INTO outcomes SELECT id,
        CASE WHEN id % 50 = 0 THEN 'rejected' WHEN id % 50 = 1 THEN 'unchanged' ELSE 'applied' END,
        CASE WHEN id % 50 = 0 THEN 'illegal_transition' END, NULL,
        now() - :days * interval '1 day' * (1 - 0.25 * id / :attempts)
    FROM inbox""",
    # Of each attempt: five values of its credit, the second superseded; three mails, a cascade, a reset.
    f"""INSERT INTO effects ({_COLUMNS}, tries, created_at, due_at, retrying_since, done_at, dropped_at)
    SELECT {_UUID.format("a", "k + 16")},
        (ARRAY['set_credit_status', 'send_status_email', 'set_credit_status', 'cascade_decline',
            'set_credit_status', 'send_status_email', 'set_credit_status', 'send_status_email',
            'delete_student_attempt', 'set_credit_status'])[k + 1],
        CASE WHEN k = 2 THEN 'superseded' ELSE 'done' END, {_UUID.format("a", "0")}, 'u' || u,
        CASE WHEN k IN (0, 2, 4, 6, 9) THEN 'credit:u' || u || '/c' || c || '/k' || e END,
        CASE WHEN k IN (1, 5, 7) THEN {_ORDER_KEY} END,
        {_PAYLOAD}, '/lms', 'a' || a || '-' || k % 4 + 1, CASE WHEN k = 2 THEN 0 ELSE 1 END,
        at + k * interval '10 min', at + k * interval '10 min', at + k * interval '10 min',
        CASE WHEN k <> 2 THEN at + k * interval '11 min' END, CASE WHEN k = 2 THEN at + k * interval '11 min' END
    FROM ({_each_attempt(10)}) AS n""",
    """INSERT INTO tries SELECT id, 1, created_at, done_at, 'done', NULL FROM effects WHERE state = 'done'""",
    # The few that are not finished, each on an attempt of its own: 2,000 are due next week.
    f"""INSERT INTO effects ({_COLUMNS}, tries, due_at, offered_until, lease_until, retrying_since, dropped_at)
    SELECT {_UUID.format("a", "256")},
        (ARRAY['set_credit_status', 'send_status_email', 'cascade_decline',
            'delete_student_attempt'])[a / 8 % 4 + 1],
        state, {_UUID.format("a", "0")}, 'u' || u,
        CASE WHEN a / 8 % 4 = 0 THEN 'credit:u' || u || '/c' || c || '/k' || e END,
        CASE WHEN a / 8 % 4 = 1 THEN {_ORDER_KEY} END,
        {_PAYLOAD}, '/lms', 'a' || a || '-1', tries,
        CASE WHEN a / 8 <= 2000 THEN now() + interval '7 days' ELSE now() - interval '1 min' END,
        CASE WHEN a / 8 % 40 = 25 THEN now() + interval '1 h' END, lease, CASE WHEN tries > 0 THEN now() END,
        CASE WHEN state = 'cancelled' THEN now() END
    FROM ({_each_attempt()}) AS n CROSS JOIN LATERAL (SELECT
        CASE WHEN a / 8 <= 2300 THEN 'pending' WHEN a / 8 <= 2370 THEN 'running'
            WHEN a / 8 <= 2450 THEN 'failed' ELSE 'cancelled' END AS state,
        CASE WHEN a / 8 <= 2000 OR a / 8 > 2300 THEN 1 ELSE 0 END AS tries,
        CASE WHEN a / 8 BETWEEN 2301 AND 2320 THEN now() - interval '1 s'
            WHEN a / 8 BETWEEN 2321 AND 2370 THEN now() + interval '1 h' END AS lease) AS s
    WHERE a % 8 = 3 AND a / 8 <= 2498""",
    """INSERT INTO tries SELECT id, 1, created_at, CASE WHEN state <> 'running' THEN created_at END,
        CASE state WHEN 'running' THEN NULL WHEN 'pending' THEN 'retry' ELSE 'failed' END, NULL
    FROM effects WHERE state NOT IN ('done', 'superseded') AND tries = 1""",
    """INSERT INTO quarantine (shard, code, detail, headers, body, received_at)
    SELECT 0, 'not_json', 'is no JSON', '{}', convert_to(repeat(md5(m::text), 32), 'UTF8'), now()
    FROM generate_series(1, 9990) AS m""",
)


def fill(engine: Engine, scale: int, *, at_once: bool = True) -> Filled:
    """Fill a migrated, empty database, without checks.

    Parameters:
        at_once: quickly, building the indexes afterwards, and analyse it. Otherwise it grows, and nobody notices.
    """
    filled = Filled(ATTEMPTS * scale)
    values = {
        "attempts": filled.attempts,
        "learners": filled.learners,
        "courses": filled.courses,
        "days": DAYS,
    }
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
        indexes = connection.execute(_INDEXES, {"tables": list(TABLES)}).all() if at_once else []
        for index in indexes:
            connection.execute(text(index.drop))
        for statement in FILL:
            connection.execute(text(statement), _used(statement, values))
        for index in indexes:
            connection.execute(text(index.build))
    if at_once:
        with engine.begin() as connection:
            # No VACUUM: PostgreSQL must not count on what it has not done yet in production.
            connection.execute(text("ANALYZE"))
    return filled


# All but those of primary keys, on which the foreign keys hang.
_INDEXES = text(
    """SELECT format('DROP INDEX %s', indexrelid::regclass) AS drop, pg_get_indexdef(indexrelid) AS build
    FROM pg_index
    WHERE indrelid::regclass::text = ANY(:tables)
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    UNION ALL
    SELECT
        format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
        format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE contype = 'u' AND conrelid::regclass::text = ANY(:tables)"""
)


def _used(statement: str, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if f":{name}" in statement}
