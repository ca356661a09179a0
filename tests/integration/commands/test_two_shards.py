"""Two shards that change the same thing at the same time, on a real PostgreSQL."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from db import round_trips, shards
from db.shards import Fence, Renewal
from events.commands import CommandData, CourseUpsert
from tests import sample_commands as c
from tests.integration.commands.test_consumer import until
from worker.commands.batches import Batches
from worker.commands.decoding import Received
from worker.commands.handler import Handler
from worker.policies import Policies

LEASE_S = 60.0
HANDLER = Handler(Policies(), instructor=True)
NOW = datetime.now(UTC)

_WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def fences(engine: Engine) -> list[Fence]:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 2)
        taken = [shards.take(connection, number, "me", LEASE_S) for number in range(2)]
    return [fence for fence in taken if fence is not None]


def received(data: CommandData, minutes: int) -> Received:
    """A command of so many minutes after some moment in the past."""
    one = c.received(data)
    time = NOW - timedelta(days=1) + timedelta(minutes=minutes)
    return replace(one, command=replace(one.command, time=time))


def at_the_same_time(engine: Engine, first: Sequence[Received], second: Sequence[Received]) -> None:
    """Commit a batch on one shard while the other one, which has begun before, still waits to commit its own."""
    ours, others = fences(engine)

    def somebody_waits() -> bool:
        with engine.begin() as connection:
            return connection.execute(text(_WAITING)).first() is not None

    with engine.connect() as other, ThreadPoolExecutor() as threads:
        HANDLER.handle(other, Renewal(others, LEASE_S, len(first)), first, [])
        round_trips.flush(other)
        committing = threads.submit(Batches(engine, HANDLER, LEASE_S).commit, ours, second)
        until(somebody_waits)
        other.commit()
        committing.result()


def codes(engine: Engine) -> dict[str, str | None]:
    """The code of each command's outcome, by the command's id."""
    with engine.begin() as connection:
        rows = connection.execute(
            text("SELECT command_id, code FROM inbox JOIN outcomes ON inbox.id = inbox_id")
        )
        return {row.command_id: row.code for row in rows}


def test_one_of_them_gets_the_attempt_code(engine: Engine) -> None:
    setting = [c.received(one) for one in (c.course(), c.exam("A"), c.learner("42"), c.learner("43"))]
    with engine.begin() as connection:
        c.handle(HANDLER, connection, setting)
    first, second = (c.received(c.create("A", user, attempt_code="code")) for user in ("42", "43"))
    at_the_same_time(engine, [first], [second])
    found = codes(engine)
    assert (found[first.command.id], found[second.command.id]) == (None, "attempt_code_taken")


def test_the_older_description_does_not_replace_the_newer_one(engine: Engine) -> None:
    newer, older = received(c.exam("A", exam_name="new"), 2), received(c.exam("A", exam_name="old"), 1)
    at_the_same_time(engine, [newer], [older])
    found = codes(engine)
    assert (found[newer.command.id], found[older.command.id]) == (None, "overtaken")
    with engine.begin() as connection:
        assert connection.execute(text("SELECT exam_name FROM exams")).scalar_one() == "new"


def test_both_of_them_say_something_of_the_course(engine: Engine) -> None:
    # Given one that names it and one that names its provider, neither of which knows of the other
    named, provided = CourseUpsert(course_id="c", name="N"), CourseUpsert(course_id="c", provider="P")
    at_the_same_time(engine, [received(named, 1)], [received(provided, 2)])
    with engine.begin() as connection:
        course = connection.execute(text("SELECT name, provider FROM courses")).one()
    assert tuple(course) == ("N", "P")
