"""A database with much to look at, and a console that serves it: for tests in a browser, and for pictures."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from fastapi import FastAPI
from sqlalchemy import Engine, text

from db import subscribers
from invigilator.web.console.app import make_console, read_sign_in
from invigilator.web.console.rendering import HOME
from invigilator.web.console.running import Runner
from invigilator.web.server import Server
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from tests.unit.web.console.visiting import settings

MANY = 10_000
LONG = "exam-of-the-very-long-name-" + "x" * 200
RIGHT_TO_LEFT = "طالب-٤٢"
CAUSE = "5f0c2a9e7d31"

_CAUSES = """
INSERT INTO causes (id, kind, status, exception, reason, first_seen) VALUES
    (:cause, 'set_credit_status', 503, NULL, '503 from the credit service: over_capacity', now() - interval '3 h')
"""
_MANY = """
INSERT INTO effects (
    id, kind, state, attempt_id, user_id, payload, source, command_id, tries, created_at, last_error, cause,
    failed_at
)
SELECT
    gen_random_uuid(), 'set_credit_status', 'failed', attempts.id, attempts.user_id,
    jsonb_build_object(
        'exam_id', attempts.exam_id, 'user_id', attempts.user_id, 'course_id', 'course-1', 'content_id', 'x',
        'status', 'submitted'
    ),
    '/tests', 'c' || number, 9, now() - number * interval '1 s',
    '503 from the credit service: over_capacity', :cause, now() - interval '2 min'
FROM generate_series(1, :many) AS number, (SELECT * FROM attempts WHERE user_id = 'crowd')  AS attempts
"""
_TRIES = """
INSERT INTO tries (effect_id, number, started_at, finished_at, result, error, cause)
SELECT id, 1, now() - interval '4 h', now() - random() * interval '3 h', 'failed', last_error, cause
FROM effects
WHERE cause IS NOT NULL
LIMIT 500
"""
_SAMPLES = """
INSERT INTO samples (at, name, labels, value)
SELECT
    date_bin('5 min', now(), 'epoch') - number * interval '5 min', 'tries', ARRAY['set_credit_status', result],
    (72 - number) * each + CASE result WHEN 'done' THEN 0 ELSE greatest(0, 36 - number) * 20 END
FROM generate_series(0, 71) AS number, (VALUES ('done', 40), ('retry', 4), ('failed', 1)) AS counted (result, each)
"""
_TOTALS = """
INSERT INTO totals (name, labels, writer, value)
SELECT 'effects', ARRAY[kind, state], '00000000-0000-0000-0000-000000000000', count(*)
FROM effects
WHERE state IN ('done', 'failed', 'superseded', 'cancelled')
GROUP BY kind, state
"""
_CIRCUIT = """
INSERT INTO circuits (queue, failures, since, open_until, reason)
VALUES (
    'invigilator.effects.credit', 12, now() - interval '3 h', now() + interval '20 s', '503 from the credit service'
)
"""
_PAUSE = """
INSERT INTO pauses (id, kind, ends_at, reason)
VALUES (gen_random_uuid(), 'delete_student_attempt', now() + interval '2 h', 'the platform is updated')
"""
_PROCESSES = """
INSERT INTO processes (id, role, host, pid, state, doing, started_at, seen_at)
SELECT
    gen_random_uuid(), role, 'exams-' || number, 100 + number, 'working',
    jsonb_build_object('queues', jsonb_build_array()), now() - interval '9 h', now() - silent * interval '1 s'
FROM (VALUES ('commands', 1, 1), ('relay', 1, 2), ('credit', 2, 40), ('web', 1, 1)) AS known (role, number, silent)
"""


def fill(engine: Engine) -> None:
    """Put into a database what somebody on call may see at 03:00."""
    record = Record(engine)
    record.handle(
        c.received(c.course(), "course"),
        *(c.received(c.exam(exam), f"exam-{exam}") for exam in ("A", "B", LONG)),
        *(c.received(c.learner(user), f"learner-{user}") for user in ("42", "crowd", RIGHT_TO_LEFT)),
        c.received(c.create("B", "crowd"), "create-crowd"),
        c.received(c.create("A"), "create"),
        c.received(c.update("A", "submitted"), "submit"),
        c.received(c.update("A", "created"), "back"),
        c.received(c.create(LONG, RIGHT_TO_LEFT), "create-long"),
        c.received(c.update(LONG, "submitted", RIGHT_TO_LEFT), "submit-long"),
    )
    for number in range(3):
        record.quarantine(
            b'{"specversion": "1.0", "type": "exam.attempt.', source="/lms/acme", command_id=f"m{number}"
        )
    with engine.begin() as connection:
        subscribers.store(
            connection,
            {
                "webhook.acme": {"url": "https://acme.example", "order": "none"},
                "feed.lms": {"name": "events"},
            },
        )
        for statement in (_CAUSES, _MANY, _TRIES, _CIRCUIT, _PAUSE, _PROCESSES, _SAMPLES, _TOTALS):
            connection.execute(
                text(statement), {"cause": CAUSE, "many": MANY} if ":cause" in statement else {}
            )
        connection.exec_driver_sql("ANALYZE")


@contextmanager
def served(engine: Engine, **others: Any) -> Iterator[str]:
    """Serve the console on this machine, with these settings. Yields the address of its first page."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        host, port = listener.getsockname()
        given = settings(web_address=f"{host}:{port}", **others)
        sign_in = read_sign_in(given)
        assert sign_in is not None
        runner = Runner()
        app = FastAPI()
        app.mount(HOME, make_console(engine, sign_in, given, runner))
        server = Server(app, ())
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://{host}:{port}{HOME}"
        finally:
            server.stop()
            thread.join()
            runner.close()
