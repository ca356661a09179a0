"""The database is restored from a backup, as docs/operate.md says."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy.engine import make_url

from invigilator.demo.reference import Result
from invigilator.local import postgres
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_record_of_a_calm_day, expected_credit
from tests.chaos.listener import BEHIND, FEED, write_subscriptions

COMMANDS = 150
LOST = 60
"""How many of the commands come after the backup."""
OVERLAP = 20
"""How many from before the backup are published again: nobody knows its moment that exactly."""
EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


def client(program: str, database_url: str, *arguments: str) -> None:
    """Run a client program of PostgreSQL on a database."""
    url = make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    subprocess.run([postgres.binary(program), f"--dbname={url}", *arguments], check=True, capture_output=True)


def told(broker_url: str) -> list[dict[str, Any]]:
    """What a reader of the feed has seen, in order."""
    with Redis.from_url(broker_url) as redis:
        entries: Any = redis.xrange(FEED)
    return [json.loads(fields[b"event"]) for _, fields in entries]


def what_happened(events: list[dict[str, Any]]) -> Counter[tuple[str | None, ...]]:
    """What events tell, without the names that are made anew when the same commands come again."""
    return Counter(
        (
            event["type"],
            *(event["data"].get(name) for name in ("user_id", "exam_id", "to_status", "id", "code")),
        )
        for event in events
    )


def settle(stack: Stack) -> None:
    """Wait until everything has happened and was told."""
    stack.settle()
    stack.wait_until(lambda: stack.number(BEHIND) == 0, "the feed to catch up")


@pytest.fixture
def stack(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Stack]:
    with Stack(database_url, valkey_url, SUBSCRIPTIONS_FILE=write_subscriptions(tmp_path)) as stack:
        yield stack


def test_what_came_after_the_backup_happens_when_it_is_published_again(
    stack: Stack, calm_database_url: str, tmp_path: Path
) -> None:
    bodies = load(COMMANDS)
    kept, lost = bodies[:-LOST], bodies[-LOST:]
    backup = str(tmp_path / "backup")
    # Given a backup, and commands after it whose effects the LMS has seen and whose events a reader has read
    stack.start_all()
    stack.wait_until(lambda: stack.number("SELECT count(*) FROM subscribers") == 1, "the feed")
    stack.client.publish(kept)
    settle(stack)
    client("pg_dump", stack.database_url, "--format=custom", f"--file={backup}")
    read_before = len(told(stack.broker_url))
    stack.client.publish(lost)
    settle(stack)
    read, calls = told(stack.broker_url), len(stack.lms.calls)
    sequence = max(call.sequence for call in stack.lms.calls)
    # When everything of ours is stopped, and the backup is restored
    for process in stack.processes:
        assert process.terminate() == 0
    stack.execute(EMPTY)
    client("pg_restore", stack.database_url, backup)
    # Then what came in between has never happened for us, but for the LMS it has
    assert stack.handled() == len(kept)
    assert stack.rows("SELECT FROM effects WHERE state IN ('pending', 'running')") == []
    credit = dict(stack.lms.reference.credit)
    # When everything since shortly before the backup is published again, in the same order, and all is started
    stack.client.publish([*kept[-OVERLAP:], *lost])
    stack.start_all()
    settle(stack)
    # Then everything has happened, and once
    assert_record_of_a_calm_day(stack, calm_database_url)
    # and the LMS believes what it did: it took each call for newer than those from before the restore
    again = stack.lms.calls[calls:]
    assert again
    assert {call.result for call in again} <= {Result.APPLIED, Result.DUPLICATE}
    assert min(call.sequence for call in again) > sequence
    assert stack.lms.reference.credit == credit
    assert {key: stack.lms.credit(*key) for key in expected_credit(stack)} == expected_credit(stack)
    # and the reader is told of it once more, above all that it has read and without a gap
    news = told(stack.broker_url)[len(read) :]
    positions = [int(event["sequence"]) for event in news]
    assert positions == list(range(positions[0], positions[0] + len(positions)))
    assert positions[0] > int(read[-1]["sequence"])
    assert what_happened(news) == what_happened(read[read_before:])
