"""The broker carries messages and is never the memory: wiped, it takes nothing with it that was committed."""

import redis

from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled


def test_everything_still_happens(stack: Stack, calm_database_url: str) -> None:
    stack.start_all()
    stack.lms.stop()
    stack.mail.reject_fraction = 1.0
    stack.client.publish(load(450, seed=3))
    stack.settle_commands()
    stack.wait_until(lambda: _tried(stack) > 10, "the first tries to fail, and some probes")
    assert stack.owed() > 100
    with redis.Redis.from_url(stack.broker_url) as broker:
        broker.flushall()
        stack.mail.reject_fraction = 0.0
        stack.lms.start()
        before = stack.owed()
        stack.wait_until(lambda: stack.owed() < before - 50, "some of it to be done")
        broker.flushall()
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_a_wiped_broker_takes_new_commands(stack: Stack) -> None:
    stack.start_all()
    stack.client.publish(load(20, seed=4))
    stack.settle()
    with redis.Redis.from_url(stack.broker_url) as broker:
        broker.flushall()
    stack.client.publish(load(60, seed=4)[-40:])
    stack.settle()


def _tried(stack: Stack) -> int:
    return stack.number("SELECT count(*) FROM effects WHERE tries > 0 AND state = 'pending'")
