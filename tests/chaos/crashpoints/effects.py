"""What the tests of the effects side share: owing effects without `consume`, and what became of their calls."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kombu import Connection
from sqlalchemy import Row

from events.envelope import parse
from invigilator.demo.reference import Call
from tests import sample_commands as c
from tests.acceptance.client import event
from tests.acceptance.harness import Stack
from tests.acceptance.lms import Answer, Request
from tests.engines import disposed
from worker.commands.decoding import Received, decode
from worker.commands.handler import Handler
from worker.commands.sources import Message
from worker.policies import Policies

CREDIT_QUEUE = "invigilator.effects.credit"
BATCH = 500
UNHURRIED = {"LEASE_S": 240, "CALL_TIMEOUT_S": 60}
"""No lease and no call ends by itself during a test; `lapse` ends leases."""
BRISK: dict[str, Any] = {"CALL_TIMEOUT_S": 1}
"""For a relay: offers soon expire. A worker that dies or stands still may have taken a message with it."""


def owe(stack: Stack, bodies: Sequence[bytes]) -> None:
    """Commit commands as `consume` would, in this process."""
    handler = Handler(Policies(), instructor=True)
    received = [
        item for item in (decode(Message(body, None)) for body in bodies) if isinstance(item, Received)
    ]
    assert len(received) == len(bodies)
    with disposed(stack.database_url) as engine:
        for start in range(0, len(received), BATCH):
            with engine.begin() as connection:
                c.handle(handler, connection, received[start : start + BATCH])
    for body in bodies:
        command = parse(body)
        stack.client.bodies[command.source, command.id] = body


def introduce(learners: Iterable[str], exams: Sequence[str] = ("exam",)) -> list[bytes]:
    """Commands that introduce one course, with exams, and learners that have an attempt at each."""
    bodies = [event("course.upsert.v1", {"course_id": "course"}, "course")]
    for exam in exams:
        data = {"exam_id": exam, "course_id": "course", "content_id": f"content-{exam}", "exam_name": exam}
        bodies.append(event("exam.upsert.v1", data, exam))
    for user in learners:
        data = {"user_id": user, "username": f"name-{user}", "email": f"{user}@example.org"}
        bodies.append(event("learner.upsert.v1", data, f"learner {user}"))
        bodies += [_create(user, exam) for exam in exams]
    return bodies


def _create(user: str, exam: str) -> bytes:
    data = {**_attempt(user, exam), "taking_as_proctored": True}
    return event("exam.attempt.create.v1", data, f"create {user} {exam}")


def update(user: str, status: str, exam: str = "exam") -> bytes:
    """The learner's attempt gets a status: the first time that it does."""
    data = {**_attempt(user, exam), "to_status": status}
    return event("exam.attempt.update-status.v1", data, f"{user} {exam} {status}")


def remove(user: str, exam: str = "exam") -> bytes:
    """The learner's attempt is removed."""
    return event("exam.attempt.remove.v1", _attempt(user, exam), f"remove {user} {exam}")


def _attempt(user: str, exam: str) -> dict[str, Any]:
    return {"exam_id": exam, "user_id": user}


def lapse(stack: Stack) -> None:
    """As if every lease, and every circuit's pause, were over."""
    stack.execute(
        "UPDATE effects SET lease_until = now() - interval '1s' WHERE state = 'running';"
        "UPDATE circuits SET open_until = now() - interval '1s' WHERE open_until IS NOT NULL"
    )


def end_offers(stack: Stack) -> None:
    """As if every unanswered offer were so old that it is made again."""
    stack.execute("UPDATE effects SET offered_until = now() WHERE state = 'pending'")


def effects(stack: Stack) -> list[Row[Any]]:
    """Every effect, oldest first."""
    return stack.rows("SELECT * FROM effects ORDER BY sequence")


def states(stack: Stack) -> Counter[str]:
    """How many effects are in each state."""
    rows = stack.rows("SELECT state, count(*) AS number FROM effects GROUP BY state")
    return Counter({row.state: row.number for row in rows})


def results(stack: Stack) -> dict[str, list[str | None]]:
    """What became of each try, by effect."""
    tried: dict[str, list[str | None]] = {str(row.id): [] for row in effects(stack)}
    for row in stack.rows("SELECT effect_id, result FROM tries ORDER BY effect_id, number"):
        tried[str(row.effect_id)].append(row.result)
    return tried


def calls(stack: Stack) -> dict[str, list[Call]]:
    """The calls that the LMS has understood, by effect."""
    made: dict[str, list[Call]] = {}
    for call in stack.lms.calls:
        made.setdefault(call.effect_id, []).append(call)
    return made


def posted(stack: Stack) -> int:
    """How many calls that change something have reached the LMS, whatever it did about them."""
    return sum(1 for request in stack.lms.requests if request.body)


def mails(stack: Stack) -> Counter[str]:
    """How often the mail of each effect was taken."""
    return Counter(mail.message_id.strip("<>").partition("@")[0] for mail in stack.mail.mails)


def assert_no_call_without_its_try(stack: Stack) -> None:
    """Nothing reached the other side more often than tries of it ended without a recorded success, and once."""
    taken = Counter(call.effect_id for call in stack.lms.calls) + mails(stack)
    for effect_id, tried in results(stack).items():
        assert taken[effect_id] <= len(tried)
        assert tried.count("done") <= 1


def messages(stack: Stack, queue: str) -> int:
    """How many messages wait in a queue of the workers'."""
    with Connection(stack.broker_url) as connection:
        declared = connection.default_channel.queue_declare(queue, durable=True, auto_delete=False)
        return int(declared.message_count)


@contextmanager
def holding_calls(stack: Stack) -> Iterator[threading.Event]:
    """The LMS takes calls and does nothing about them until the event is set, or this is left."""
    go_on = threading.Event()

    def script(request: Request) -> Answer | None:
        if request.body:
            go_on.wait()
        return None

    stack.lms.script = script
    try:
        yield go_on
    finally:
        stack.lms.script = lambda _request: None
        go_on.set()
