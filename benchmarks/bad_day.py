"""Fills a database as at 03:00 after years of use: ten million effects have ended, and a service is down.

The years are those of `tests.integration.db.filling`, whose numbers name learners, exams, attempts and commands. On
top of them come pending effects, half of which are tried in vain; failed ones of a few causes; events that a feed
has not passed; the audit; what the processes have counted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, text

from db import totals
from tests.integration.db.filling import Filled, fill

YEARS = 50
"""The scale of `tests.integration.db.filling` at which ten million effects have ended."""
PENDING, FAILED = 200_000, 4_000
ACTS = 100_000
EVENTS, BEHIND = 300_000, 200_000
FEED, WEBHOOK, DELIVERIES = "feed.board", "webhook.acme", 20_000
CAUSES = 5
KINDS = ["set_credit_status", "send_status_email", "cascade_decline", "delete_student_attempt"]

_ADDED = """
INSERT INTO causes (id, kind, status, exception, reason)
SELECT 'cause' || n, (ARRAY['set_credit_status', 'send_status_email', 'cascade_decline'])[n % 3 + 1], 500 + n,
    'HTTPError', 'answered ' || 500 + n
FROM generate_series(0, :causes - 1) AS n;

INSERT INTO effects (id, kind, state, attempt_id, user_id, payload, source, command_id, tries, created_at, due_at,
    retrying_since, last_error, cause, failed_at)
SELECT gen_random_uuid(),
    (ARRAY['set_credit_status', 'send_status_email', 'cascade_decline'])[n % :causes % 3 + 1],
    CASE WHEN n < :pending THEN 'pending' ELSE 'failed' END, attempts.id, attempts.user_id,
    jsonb_build_object('exam_id', attempts.exam_id, 'user_id', attempts.user_id, 'course_id', 'c',
        'content_id', 'k', 'status', 'submitted', 'requested_by', NULL),
    '/lms', 'a' || n || '-1', fails::int, moment, now() + interval '1 hour', CASE WHEN fails THEN moment END,
    CASE WHEN fails THEN 'answered ' || 500 + n % :causes || ' to ' || n END,
    CASE WHEN fails THEN 'cause' || n % :causes END, CASE WHEN fails THEN moment END
FROM generate_series(0, :pending + :failed - 1) AS n
CROSS JOIN LATERAL (
    SELECT now() - interval '6 hours' * (1 - 1.0 * n / (:pending + :failed)) AS moment, n * 2 >= :pending AS fails
) AS at
JOIN attempts ON attempts.id = (lpad(to_hex(n % :attempts), 12, '0') || repeat('0', 20))::uuid;

INSERT INTO tries (effect_id, number, started_at, finished_at, result, error, cause)
SELECT id, 1, failed_at, failed_at, CASE state WHEN 'failed' THEN 'failed' ELSE 'retry' END, last_error, cause
FROM effects
WHERE cause IS NOT NULL;

INSERT INTO events (id, position, type, time, data)
SELECT lpad(to_hex(n), 32, '0')::uuid, n, 'exam.message.quarantined.v1', now(), '{}'
FROM generate_series(1, :events) AS n;
UPDATE event_log SET position = :events;
INSERT INTO subscribers (name, definition, position, failing_since, reason)
VALUES
    (:feed, '{}', :events - :behind, now(), 'the other side is away'),
    (:webhook, '{"url": "https://example.org"}', :events, NULL, NULL);

INSERT INTO effects (id, kind, state, payload, source, command_id, tries, created_at, due_at, subscriber, done_at,
    failed_at)
SELECT gen_random_uuid(), 'deliver_event', CASE WHEN n % 10 = 0 THEN 'failed' ELSE 'done' END, '{}', '/lms', 'a1-1',
    1, now() - n * interval '1 s', now(), :webhook, CASE WHEN n % 10 <> 0 THEN now() END,
    CASE WHEN n % 10 = 0 THEN now() END
FROM generate_series(1, :deliveries) AS n;

INSERT INTO acts (sequence, act_id, step, closing, at, actor, is_claimed, via, action, user_id, filter, number,
    details, previous, hash)
SELECT n, gen_random_uuid(), 1, true, now() - n * interval '1 min', 'ada', false, 'api', 'retry', 'u' || n % 1000,
    '{}', 1, '{}', sha256(''), sha256('')
FROM generate_series(1, :acts) AS n;
INSERT INTO act_targets (act_sequence, effect_id, before, after)
SELECT n, gen_random_uuid(), 'failed', 'pending' FROM generate_series(1, :acts) AS n;

INSERT INTO quarantine (shard, code, detail, headers, body, received_at)
SELECT 0, 'not_json', 'is no JSON', '{}', 'x', now()
FROM generate_series(1, 10000 - (SELECT count(*) FROM quarantine)) AS n;

INSERT INTO samples (at, name, labels, value)
SELECT date_bin('5 min', now(), 'epoch') - n * interval '5 min', 'tries', ARRAY[kind, result], 1000000 - n
FROM generate_series(0, 575) AS n
CROSS JOIN unnest(:kinds) AS kind
CROSS JOIN unnest(ARRAY['done', 'retry', 'failed', 'lost']) AS result;
INSERT INTO totals (name, labels, writer, value)
SELECT 'tries', ARRAY[kind, result], gen_random_uuid(), 1000
FROM generate_series(1, 20) AS process
CROSS JOIN unnest(:kinds) AS kind
CROSS JOIN unnest(ARRAY['done', 'retry', 'failed', 'lost']) AS result
"""

_HURRY = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "32GB", "checkpoint_timeout": "1h"}
_RELOAD = "SELECT pg_reload_conf()"


def begin(url: str, scale: float, say: Callable[[str], None]) -> Filled:
    """Fill a migrated database that holds some exams at most.

    Parameters:
        url: of the database.
        scale: 1 for ten million finished effects. What waits does not become less.
        say: prints a line of progress.
    """
    began = time.monotonic()
    engine = create_engine(url)
    with _hurrying(engine):
        filled = fill(engine, max(1, round(YEARS * scale)))
        say(f"filling the years: {time.monotonic() - began:.0f} s")
        with engine.begin() as connection:
            _add(connection, filled)
        with engine.connect() as connection:
            totals.recount(connection)
        _run(engine, "VACUUM (ANALYZE)", "CHECKPOINT")
    engine.dispose()
    say(f"filled: {time.monotonic() - began:.0f} s")
    return filled


@contextmanager
def _hurrying(engine: Engine) -> Iterator[None]:
    """Have the server write little and flush nothing meanwhile."""
    _run(engine, *(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in _HURRY.items()), _RELOAD)
    yield
    _run(engine, *(f"ALTER SYSTEM RESET {name}" for name in _HURRY), _RELOAD)


def _run(engine: Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))


def _add(connection: Connection, filled: Filled) -> None:
    values = {
        "attempts": filled.attempts,
        "pending": PENDING,
        "failed": FAILED,
        "causes": CAUSES,
        "acts": ACTS,
        "events": EVENTS,
        "behind": BEHIND,
        "feed": FEED,
        "webhook": WEBHOOK,
        "deliveries": DELIVERIES,
        "kinds": KINDS,
    }
    connection.execute(text("SET LOCAL session_replication_role = replica"))
    for statement in _ADDED.split(";\n"):
        bound = text(statement)
        connection.execute(bound, {name: values[name] for name in bound.compile().params})
