"""The same on RabbitMQ: the whole way of an attempt, a consumer killed at work, and a late day."""

from collections.abc import Iterator

import pytest

from tests.acceptance.day import assert_a_late_day_is_understood
from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled

BATCH = 5
KILLS = 4


@pytest.fixture
def stack(database_url: str, rabbitmq_url: str) -> Iterator[Stack]:
    with Stack(database_url, rabbitmq_url) as stack:
        yield stack


def test_an_attempt_and_killed_consumers(stack: Stack, calm_database_url: str) -> None:
    for name in ("relay", "effects", "mail"):
        stack.start(name)
    for _ in range(2):
        stack.start("commands", BATCH_SIZE=BATCH)
    bodies = load(300, seed=12)
    stack.client.publish(bodies)
    for kill in range(1, KILLS + 1):
        stack.wait_until_handled(len(bodies) * kill // (KILLS + 1))
        stack.some_owner().kill()
        stack.start("commands", BATCH_SIZE=BATCH)
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_a_day_that_arrives_late_and_out_of_order(stack: Stack) -> None:
    assert_a_late_day_is_understood(stack, seed=2)
