"""The event bus of an Open edX site, with its own packages: what their consumer makes of our stream."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from invigilator.local.guard import Guard
from tests.acceptance.harness import Stack
from tests.install.environments import Environment
from worker.feeds.openedx import BUS_TYPE, SOURCELIB
from worker.feeds.openedx_data import schema

CONSTRAINTS = Path(__file__).with_name("openedx.txt")
SCRIPT = Path(__file__).with_name("openedx_site.py")
WORDS = ("submitted", "rejected", "verified", "errored", "reset")
TOPIC = "learning-exam-attempt-lifecycle"
COURSE = "course-v1:edX+DemoX+2026"
CONTENT = "block-v1:edX+DemoX+2026+type@sequential+block@final"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What a site has installed, as far as the bus is concerned."""
    environment = Environment.create(tmp_path_factory.mktemp("openedx"), constraints=CONSTRAINTS)
    environment.install("django", "openedx-events", "edx-event-bus-redis")
    return environment


@contextmanager
def consuming(site: Environment, folder: Path, redis_url: str) -> Iterator["subprocess.Popen[str]"]:
    """`manage.py consume_events`, which prints a line for each signal."""
    extra = json.dumps({"consumer_name": "lms-1", "check_backlog": True})
    command = ["consume_events", "-t", TOPIC, "-g", "lms", "--extra", extra]
    with (
        Guard() as guard,
        (folder / "consumer.log").open("w") as log,
        subprocess.Popen(
            [site.python, str(shutil.copy(SCRIPT, folder)), redis_url, *command],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        guard.watch_group(process.pid)
        yield process
        process.kill()


def heard(consumer: "subprocess.Popen[str]", number: int) -> list[dict[str, Any]]:
    """The next signals of the consumer."""
    assert consumer.stdout is not None
    lines = [consumer.stdout.readline() for _ in range(number)]
    assert all(lines), "the consumer has ended"
    return [json.loads(line) for line in lines]


def test_the_schemas_are_those_of_its_classes(site: Environment, tmp_path: Path) -> None:
    script = shutil.copy(SCRIPT, tmp_path)
    run = site.run("python", str(script), "redis://127.0.0.1:1", "schemas", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    printed = json.loads(run.stdout)
    assert printed["version"] == SOURCELIB
    types = [BUS_TYPE.format(word) for word in WORDS]
    assert printed["schemas"] == {name: schema(name) for name in types}


def test_its_consumer_fires_the_signals(
    site: Environment, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    # Given a site that listens, and an Invigilator that leaves to it what follows from its events
    file = tmp_path / "subscriptions.toml"
    file.write_text(f'[openedx.lms]\nredis = "{valkey_url}"\ntopic = "dev-{TOPIC}"\n')
    off = {"CREDIT": "off", "INSTRUCTOR": "off"}
    with (
        Stack(database_url, valkey_url, SUBSCRIPTIONS_FILE=file, **off) as stack,
        consuming(site, tmp_path, valkey_url) as consumer,
    ):
        stack.start("relay")
        stack.wait_until(lambda: stack.number("SELECT count(*) FROM subscribers") == 1, "the subscriber")
        stack.start("commands")
        # When attempts go through everything that the bus has a type for, and some that it cannot carry
        sit(stack)
        # Then the real signals fire, in order, with what the platform's receivers look at
        signals = heard(consumer, len(WORDS))
        assert [one["type"] for one in signals] == [BUS_TYPE.format(word) for word in WORDS]
        assert_told(stack, signals)
        # And after a replay they fire again, with the same ids
        stack.wait_until(lambda: behind(stack) == 0, "the cursor to pass them")
        stack.cli("events", "replay", "--to", "openedx.lms", "--after", "0")
        assert heard(consumer, len(WORDS)) == signals
        stack.wait_until(lambda: behind(stack) == 0, "the cursor to pass them again")
        feed = json.loads(stack.cli("status", "--json").stdout)["feeds"]["openedx.lms"]
        assert (feed["behind"], feed["since"], feed["skipped"]) == (0, None, 2)
        assert feed["reason"].startswith("skipped 1, such as event ")
        assert feed["reason"].endswith(": its user_id is no integer")
        assert stack.rows("SELECT kind FROM effects") == []
        # And names and addresses were read for the bus, and written nowhere
        written = [one.output() for one in stack.processes]
        written += [row.text for row in stack.rows("SELECT events::text AS text FROM events")]
        assert not [text for text in written if "example.org" in text or "Lovelace" in text]


def behind(stack: Stack) -> int:
    return stack.number(
        "SELECT count(*) FROM events, subscribers WHERE events.position > subscribers.position"
    )


def sit(stack: Stack) -> None:
    lms = stack.client
    lms.exam("7", COURSE, content_id=CONTENT)
    lms.learner("42", username="ada", email="ada@example.org", full_name="Ada Lovelace")
    lms.learner("9", username="grace", email="grace@example.org")
    lms.learner("somebody", username="somebody", email="somebody@example.org")
    for user in ("42", "9", "somebody"):
        lms.create("7", user)
    lms.update("7", "somebody", "submitted")
    for status in ("started", "submitted", "rejected", "verified"):
        lms.update("7", "42", status, cascade_effects=False)
    lms.update("7", "9", "error")
    lms.remove("7", "42", requested_by="9")


def assert_told(stack: Stack, signals: list[dict[str, Any]]) -> None:
    logged = {str(row.id): row.time for row in stack.rows("SELECT id, time FROM events")}
    for one in signals:
        assert one["time"] == logged[one["id"]].isoformat()
        assert (one["source"], one["class"]) == ("/invigilator/main", "ExamAttemptData")
        assert one["course_key"] == ["CourseLocator", COURSE]
        assert one["usage_key"] == ["BlockUsageLocator", CONTENT]
        assert one["exam_type"] == "proctored"
    ada = {"username": "ada", "email": "ada@example.org", "name": "Ada Lovelace"}
    grace = {"username": "grace", "email": "grace@example.org", "name": ""}
    submitted, *_, errored, reset = signals
    assert submitted["student_user"] == {"id": 42, "is_active": True, "pii": ada}
    assert errored["student_user"] == {"id": 9, "is_active": True, "pii": grace}
    assert [one["requesting_user_id"] for one in (submitted, errored, reset)] == [42, 9, 9]
