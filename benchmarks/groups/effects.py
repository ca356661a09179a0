"""The effects stage alone: due effects are rows already, then the relay and a worker start and do them.

*Due*: whether it matters how many are due. A first few hundred are left out, and with them the start of the
processes. Of 200,000 that are due, 6,000 are measured; the rest stays due.

*A foreign snapshot*: somebody's transaction keeps its snapshot from before the start to the end, as a long report
does, so nothing that dies meanwhile can be cleaned up. Of 20,000 effects the second half is measured, when most has
died. Beside it stands the same without that transaction. The goal speaks of ten minutes: it is the number of dead
rows that matters, and 20,000 effects are what a site with 2,000 changes a minute owes in ten.

*Calls*: what a credit costs and what a delivery to a webhook costs, both over HTTP to a service that answers at
once. The rows of both are there before. The CPU of the service itself is not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker, connect
from benchmarks.groups.services import services
from benchmarks.ours import Ours

NAME = "effects"
ROUNDS = 3
SHORT, LONG, HELD, CALLS = 2_000, 200_000, 20_000, 3_000
WARM, MOST = 500, 6_000
"""The number of first effects that are left out, and the largest number of those that are measured."""
LOOK_S = 0.1
WEBHOOK = "benchmark"
SUBSCRIPTIONS = """[webhook.{name}]
url = "{url}/hook"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
"""

ATTEMPTS = """
INSERT INTO attempts (
    id, exam_id, user_id, status, taking_as_proctored, is_sample_attempt, credit_owed, version, created_at
)
SELECT uuidv7(), 'v1', user_id, 'submitted', true, false, true, 3, now() FROM learners
"""
_CREDITS = """
INSERT INTO effects (id, kind, state, attempt_id, user_id, target, payload, source, command_id)
SELECT uuidv7(), 'set_credit_status', 'pending', id, user_id, 'credit:' || user_id || '/verified/block-v1',
    jsonb_build_object('exam_id', 'v1', 'user_id', user_id, 'course_id', 'verified', 'content_id', 'block-v1',
        'status', 'submitted'),
    '/lms/benchmark', user_id || '-3'
FROM attempts
"""
EVENTS = """
INSERT INTO events (id, type, time, subject, user_id, data)
SELECT uuidv7(), 'exam.attempt.status-changed.v1', now(), id::text, user_id,
    jsonb_build_object('attempt_code', id::text, 'exam_id', 'v1', 'course_id', 'verified', 'content_id', 'block-v1',
        'user_id', user_id, 'external_id', NULL, 'taking_as_proctored', true, 'is_sample_attempt', false,
        'status', 'submitted', 'version', 3, 'at', now(), 'cascaded_from', NULL,
        'command', jsonb_build_object('source', '/lms/benchmark', 'id', user_id || '-3'),
        'from_status', 'started', 'to_status', 'submitted', 'started_at', now(), 'completed_at', now())
FROM attempts
"""
_NUMBER = """
UPDATE events SET position = numbered.position
FROM (SELECT id, row_number() OVER (ORDER BY sequence) AS position FROM events) AS numbered
WHERE events.id = numbered.id;
UPDATE event_log SET position = (SELECT max(position) FROM events);
INSERT INTO subscribers (name, definition, position) SELECT 'webhook.benchmark', '{}', position FROM event_log
"""
_DELIVERIES = """
INSERT INTO effects (
    id, kind, state, attempt_id, user_id, payload, source, command_id, event_id, subscriber
)
SELECT uuidv7(), 'deliver_event', 'pending', subject::uuid, user_id,
    jsonb_build_object('exam_id', 'v1', 'user_id', user_id, 'course_id', 'verified', 'content_id', 'block-v1',
        'webhook', 'benchmark', 'type', type, 'to_status', 'submitted', 'order', 'none'),
    '/lms/benchmark', user_id || '-3', id, 'webhook.benchmark'
FROM events ORDER BY position
"""
_ANALYZE = "ANALYZE attempts; ANALYZE effects; ANALYZE events"
_DONE = "SELECT count(*) FROM effects WHERE state = 'done'"
_SECONDS = """
SELECT extract(epoch FROM max(done_at) - min(done_at))
FROM (SELECT done_at, row_number() OVER (ORDER BY done_at) AS number FROM effects WHERE state = 'done') AS ends
WHERE number IN (%s, %s)
"""


def due_name(broker: str, due: int) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {due:,} due"


def held_name(broker: str, *, held: bool) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {HELD:,} due, {'a' if held else 'no'} foreign snapshot"


def calls_name(broker: str, what: str) -> str:
    """Return the contestant's name. `what` is `credits` or `deliveries`."""
    return f"ours on {broker}, {what} over HTTP"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return our effects stage with few and many due effects, with a foreign snapshot, and with calls."""
    return [
        contestant
        for broker in bench.brokers
        for contestant in (
            Contestant(due_name(broker.name, SHORT), partial(_due, bench, broker, SHORT)),
            Contestant(due_name(broker.name, LONG), partial(_due, bench, broker, LONG)),
            Contestant(held_name(broker.name, held=False), partial(_held, bench, broker, held=False)),
            Contestant(held_name(broker.name, held=True), partial(_held, bench, broker, held=True)),
            Contestant(calls_name(broker.name, "credits"), partial(_credits, bench, broker)),
            Contestant(calls_name(broker.name, "deliveries"), partial(_deliveries, bench, broker)),
        )
    ]


def _due(bench: Bench, broker: Broker, due: int) -> Figures:
    with bench.ours(broker, due) as system:
        insert(system, ATTEMPTS, _CREDITS, _ANALYZE)
        return _drain(system, "effects", WARM, min(due - WARM, MOST))


def _held(bench: Bench, broker: Broker, *, held: bool) -> Figures:
    with bench.ours(broker, HELD) as system, ExitStack() as stack:
        insert(system, ATTEMPTS, _CREDITS, _ANALYZE)
        if held:
            stack.enter_context(_snapshot(system.url))
        return _drain(system, "effects", HELD // 2, HELD // 2)


@contextmanager
def _snapshot(url: str) -> Iterator[None]:
    connection = connect(url)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM shards")
        yield
    connection.close()


def _credits(bench: Bench, broker: Broker) -> Figures:
    with services(bench, 0) as urls, bench.ours(broker, CALLS, urls) as system:
        insert(system, ATTEMPTS, _CREDITS, _ANALYZE)
        return _drain(system, "effects", WARM, CALLS - WARM)


def _deliveries(bench: Bench, broker: Broker) -> Figures:
    with services(bench, 0) as urls:
        settings = _subscribed(bench.folder, urls)
        with bench.ours(broker, CALLS, settings) as system:
            insert(system, ATTEMPTS, EVENTS, _NUMBER, _DELIVERIES, _ANALYZE)
            return _drain(system, "webhooks", WARM, CALLS - WARM)


def _subscribed(folder: Path, urls: Mapping[str, object]) -> Mapping[str, object]:
    file = folder / "webhooks.toml"
    file.write_text(SUBSCRIPTIONS.format(name=WEBHOOK, url=urls["LMS_URL"]), encoding="utf-8")
    return {"SUBSCRIPTIONS_FILE": file}


def insert(system: Ours, *statements: str) -> None:
    """Run statements, which write what is to be done, and a checkpoint."""
    system.execute(*statements)
    system.checkpoint()


def _drain(system: Ours, worker: str, warm: int, number: int) -> Figures:
    """Start the relay and a worker. Measure `number` effects after the first `warm` ones."""
    system.start("relay")
    system.start(worker)
    system.wait_until(lambda: system.number(_DONE) >= warm, f"{warm} effects", LOOK_S)
    meter = system.meter()
    first, before = system.number(_DONE), meter.read()
    system.wait_until(lambda: system.number(_DONE) >= warm + number, f"{number} more", LOOK_S)
    last, usage = system.number(_DONE), meter.read().since(before)
    [[seconds]] = system.rows(_SECONDS, warm, warm + number)
    return {**usage.figures("effect", last - first), "effects_per_s": number / float(seconds)}
