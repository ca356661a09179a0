"""`consume`, killed with -9 at each of its crash points, at several passings."""

import pytest
from redis import Redis

from events.sharding import queue_name
from tests.acceptance.client import SOURCE, event
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import (
    assert_nothing_lost_or_doubled,
    assert_one_outcome_each,
    assert_record_of_a_calm_day,
)
from tests.chaos.points import Crash
from worker.commands.sources.redis import PRIORITY_SUFFIXES

BATCH = 5
PASSINGS = (1, 3)


@pytest.mark.parametrize("point", ["before_fence", "before_commit"])
def test_before_the_commit_nothing_of_the_batch_has_happened(
    stack: Stack, calm_database_url: str, point: str
) -> None:
    bodies = load(100, seed=21)
    stack.client.publish(bodies)
    for nth in PASSINGS:
        kill_at(stack, point, nth)
        stack.wait_until(
            lambda: stack.client.waiting() == len(bodies) - stack.handled(),
            "the broker to hold what is not committed, and no more",
        )
    assert stack.handled() > 0
    stack.start("commands", BATCH_SIZE=BATCH)
    stack.settle_commands()
    assert_record_of_a_calm_day(stack, calm_database_url)


def test_after_the_commit_what_comes_again_is_recognised(stack: Stack, calm_database_url: str) -> None:
    bodies = load(100, seed=22)
    stack.client.publish(bodies)
    kill_after_commits(stack, "before_acknowledge", len(bodies))
    for name in ("commands", "relay", "effects", "mail"):
        stack.start(name)
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_between_two_lists_of_one_acknowledgement(database_url: str, valkey_url: str) -> None:
    # Given a batch that is spread over the four lists of kombu's priorities
    with Stack(database_url, valkey_url) as stack, Redis.from_url(valkey_url) as client:
        bodies = [event("course.upsert.v1", {"course_id": str(n)}, str(n)) for n in range(12)]
        for number, body in enumerate(bodies):
            client.lpush(queue_name(0) + PRIORITY_SUFFIXES[number % 4], body)
            stack.client.bodies[SOURCE, str(number)] = body
        # When each process is killed after it has acknowledged one list
        for lists_left in (3, 2, 1, 0):
            kill_at(stack, "between_lists", 1, batch=len(bodies))
            # Then the others are still there, though all is committed
            assert client.exists(*(queue_name(0) + suffix for suffix in PRIORITY_SUFFIXES)) == lists_left
            assert stack.handled() == len(bodies)
        stack.start("commands")
        stack.client.course("one-more")
        stack.settle_commands()
        assert_one_outcome_each(stack)


def test_with_the_acknowledgement_unsent(
    database_url: str, rabbitmq_url: str, calm_database_url: str
) -> None:
    with Stack(database_url, rabbitmq_url) as stack:
        bodies = load(60, seed=23)
        stack.client.publish(bodies)
        kill_after_commits(stack, "before_basic_ack", len(bodies))
        stack.start("commands", BATCH_SIZE=BATCH)
        stack.settle_commands()
        assert_record_of_a_calm_day(stack, calm_database_url)


def kill_after_commits(stack: Stack, point: str, published: int) -> None:
    """Kill one process after the other there; each leaves a batch with the broker that is committed."""
    for nth in PASSINGS:
        kill_at(stack, point, nth)
        stack.wait_until(
            lambda: stack.client.waiting() > published - stack.handled(),
            "the broker to hold a batch that is committed",
        )


def kill_at(stack: Stack, point: str, nth: int, batch: int = BATCH) -> None:
    """Let a process of its own die there."""
    process = stack.start("commands", crash=Crash(point, "kill", nth), BATCH_SIZE=batch)
    stack.wait_until_struck(process)
