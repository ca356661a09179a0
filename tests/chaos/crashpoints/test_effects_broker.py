"""The broker is wiped, or restarted, under a live relay and live workers, with more pending than queues take."""

import signal
from collections.abc import Callable

from kombu import Connection
from redis import Redis

from tests.acceptance.harness import Stack
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.chaos.crashpoints.effects import (
    CREDIT_QUEUE,
    assert_no_call_without_its_try,
    calls,
    introduce,
    messages,
    owe,
    states,
    update,
)
from tests.rabbit import restartable_rabbitmq
from worker.effects.rooms import MAX_OUTSTANDING
from worker.kinds import QUEUES

LEARNERS = 100
EXAMS = tuple(f"exam-{number}" for number in range(7))
WIPES = 3
RESTARTED = tuple(f"exam-{number}" for number in range(3))


def test_wiped_with_more_pending_than_the_queue_takes(stack: Stack, calm_database_url: str) -> None:
    effects = owe_credits(stack, EXAMS)
    assert effects > MAX_OUTSTANDING
    # Given queues as full as they get, and nobody who works
    stack.start("relay")
    stack.wait_until(lambda: messages(stack, CREDIT_QUEUE) >= MAX_OUTSTANDING, "the queue to be full")
    wipe(stack)
    # When they are wiped again and again under live workers
    stack.start("effects")
    for number in range(1, WIPES + 1):
        stack.wait_until(progress(stack, effects * number // (WIPES + 1)), "some to be done")
        wipe(stack)
    # Then every one still happens
    stack.settle()
    assert len(calls(stack)) == effects
    assert_no_call_without_its_try(stack)
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_rabbitmq_restarted(database_url: str, calm_database_url: str) -> None:
    with restartable_rabbitmq() as rabbit, Stack(database_url, rabbit.url) as stack:
        effects = owe_credits(stack, RESTARTED)
        for name in ("relay", "effects"):
            stack.start(name)
        stack.lms.latency_s = 0.2
        for number, end in enumerate((signal.SIGTERM, signal.SIGKILL), 1):
            stack.wait_until(progress(stack, effects * number // 4), "some to be done")
            rabbit.end(end)
            rabbit.start()
        stack.lms.latency_s = 0.0
        stack.wait_until(progress(stack, effects), "everything to be done")
        assert_no_call_without_its_try(stack)
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def owe_credits(stack: Stack, exams: tuple[str, ...]) -> int:
    """A credit for each learner and exam. Returns how many."""
    users = [f"u{number}" for number in range(LEARNERS)]
    owe(stack, [*introduce(users, exams), *(update(user, "error", exam) for user in users for exam in exams)])
    return stack.owed()


def progress(stack: Stack, done: int) -> Callable[[], bool]:
    return lambda: states(stack)["done"] >= done


def wipe(stack: Stack) -> None:
    """Empty the whole server, or delete the workers' queues."""
    if stack.broker_url.startswith("redis"):
        with Redis.from_url(stack.broker_url) as client:
            client.flushall()
        return
    with Connection(stack.broker_url) as connection:
        for queue in set(QUEUES.values()):
            connection.default_channel.queue_delete(queue)
