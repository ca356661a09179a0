"""Names and addresses stay in the database, the LMS and the mail: not in logs, not in what our broker carries."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from tests.acceptance.client import event
from tests.acceptance.harness import Stack
from tests.acceptance.lms import Answer, Request

COMMANDS = "invigilator.commands."  # the LMS's own messages carry names, and ours does not copy them
LAST = "acceptance-last"
USERS = ("u1", "u2", "u3")
NAMES = {user: f"Zebulon Quokka-{user}" for user in USERS}
LINES = {
    "a message went to quarantine",
    "command applied",
    "command not applied",
    "effect failed",
    "try done",
    "try failed for now",
}
PERSONAL = ("quokka", "wombat", "zebulon")


def test_names_and_addresses_stay_out_of_logs_and_messages(stack: Stack) -> None:
    stack.settings["LOG_LEVEL"] = "debug"
    with _watching(stack) as messages:
        stack.start_all()
        stack.client.course("course")
        stack.client.exam("A", "course")
        stack.client.exam("B", "course")
        stack.lms.script = _troubled
        stack.mail.reject_fraction = 0.5
        _malformed(stack)
        for user in USERS:
            _whole_life(stack, user)
        stack.settle_commands()
        _cut_connections(stack)
        for user in USERS:
            stack.client.update("A", user, "started", if_missing="ignore")
            stack.client.learner(user, **_person(user))
        stack.settle()
    assert stack.number("SELECT count(*) FROM effects WHERE state = 'failed'") > 0
    assert stack.mail.rejected > 0
    assert any("invigilator.effects.email" in message for message in messages), "something was seen"
    assert _telling(messages) == []
    for process in stack.processes:
        assert _telling(process.output().splitlines()) == []
    logged = {line["event"] for process in stack.processes for line in process.logged()}
    assert logged >= LINES, "every sort of line was looked at"
    errors = stack.rows("SELECT concat(last_error, payload, target) AS text FROM effects")
    errors += stack.rows("SELECT error AS text FROM tries WHERE error IS NOT NULL")
    errors += stack.rows("SELECT detail AS text FROM quarantine")
    errors += stack.rows("SELECT detail AS text FROM outcomes WHERE detail IS NOT NULL")
    assert _telling([row.text for row in errors]) == []


def _person(user: str) -> dict[str, str]:
    return {"username": f"wombat-{user}", "email": f"quokka.{user}@example.org", "full_name": NAMES[user]}


def _whole_life(stack: Stack, user: str) -> None:
    stack.client.learner(user, **_person(user))
    stack.client.create("A", user, taking_as_proctored=True)
    for status in ("started", "submitted", "verified", "rejected"):
        stack.client.update("A", user, status)
    stack.client.remove("A", user)
    stack.client.remove("A", user)


def _malformed(stack: Stack) -> None:
    person = _person("u1")
    wrong: list[dict[str, Any]] = [{"email": "quokka"}, {"full_name": 3}, {"username": "wombat" * 200}]
    for number, fields in enumerate(wrong):
        body = event("learner.upsert.v1", {"user_id": "u1", **person, **fields}, f"wrong-{number}")
        stack.client.publish_malformed(body)
    stack.client.publish_malformed(event("learner.upsert.v1", {"user_id": "u1", **person}, "w")[:-1])


def _troubled(request: Request) -> Answer | None:
    """The first user's calls are refused, and each call fails for a moment."""
    if request.path == "/instructor/delete-student-attempt" and b"u1" in request.body:
        return Answer(400)
    return Answer(503) if hash(request.at) % 3 == 0 else None


def _cut_connections(stack: Stack) -> None:
    stack.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def _telling(texts: list[str]) -> list[str]:
    return [text for text in texts if any(word in text.lower() for word in PERSONAL)]


@contextmanager
def _watching(stack: Stack) -> Iterator[list[str]]:
    """Everything that goes through the broker, but for the queues of commands."""
    seen: list[str] = []
    with redis.Redis.from_url(stack.broker_url, socket_timeout=None) as broker, broker.monitor() as monitor:
        thread = threading.Thread(target=_listen, args=(monitor, seen), name="monitor")
        thread.start()
        try:
            yield seen
        finally:
            broker.echo(LAST)
            thread.join()


def _listen(monitor: Any, seen: list[str]) -> None:
    for entry in monitor.listen():
        command = str(entry["command"])
        if LAST in command:
            return
        if COMMANDS not in command:
            seen.append(command)
