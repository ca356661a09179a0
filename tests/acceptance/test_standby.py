"""One owner for each shard: stopped, killed or asked to go, it never writes beside its successor."""

import random

from tests.acceptance.harness import Stack
from tests.acceptance.load import feeding, load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled

BATCH = 5


def test_a_stopped_owner_that_wakes_up_does_no_harm(stack: Stack, calm_database_url: str) -> None:
    bodies = load(400, seed=7)
    for _ in range(2):
        stack.start("commands", BATCH_SIZE=BATCH)
    chance = random.Random(8)
    with feeding(stack.client, bodies):
        for stop in range(1, 6):
            stack.wait_until_handled(len(bodies) * stop // 6 + chance.randrange(2 * BATCH))
            _stop_until_replaced(stack)
    stack.settle_commands()
    assert stack.number("SELECT epoch FROM shards") > 5
    for name in ("relay", "effects", "mail"):
        stack.start(name)
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def _stop_until_replaced(stack: Stack) -> None:
    owner = stack.some_owner()
    owner.pause()
    try:
        stack.wait_until(lambda: stack.owner() not in (None, owner), "the standby to take over")
        successor, handled = stack.owner(), stack.handled()
        stack.wait_until(
            lambda: stack.handled() > handled or stack.client.waiting() == 0, "the successor to work"
        )
        assert successor is not owner
    finally:
        owner.resume()


def test_whoever_was_stopped_stands_by_afterwards(stack: Stack) -> None:
    first = stack.start("commands")
    stack.wait_until(lambda: stack.owner() is first, "the first to take the shard")
    second = stack.start("commands")
    first.pause()
    stack.wait_until(lambda: stack.owner() is second, "the second to take over")
    first.resume()
    stack.client.publish(load(50, seed=9))
    stack.settle_commands()
    assert stack.owner() is second
    second.kill()
    stack.wait_until(lambda: stack.owner() is first, "the first to take it back")
    stack.client.course("one-more")
    stack.settle_commands()


def test_asked_to_end_it_finishes_its_batch_and_releases_the_shard(
    stack: Stack, calm_database_url: str
) -> None:
    bodies = load(400, seed=10)
    stack.client.publish(bodies)
    process = stack.start("commands", BATCH_SIZE=BATCH)
    stack.wait_until(lambda: stack.handled() > 100, "some of it to be done")
    assert process.terminate() == 0
    [shard] = stack.rows("SELECT owner, lease_until FROM shards")
    assert (shard.owner, shard.lease_until) == (None, None)
    assert 0 < stack.client.waiting() == len(bodies) - stack.handled(), "no batch is half done"
    for name in ("commands", "relay", "effects", "mail"):
        stack.start(name)
    stack.settle()
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_everybody_ends_when_asked(stack: Stack) -> None:
    stack.start_all()
    stack.client.publish(load(50, seed=11))
    stack.settle()
    assert {one.name: one.terminate() for one in stack.processes} == {one.name: 0 for one in stack.processes}
