"""One of several servers of a broker dies under load, and everybody goes on with another one."""

import json
import signal
import time
from collections.abc import Sequence

from events.errors import PublishError
from events.publisher import Publisher
from tests.acceptance.client import SOURCE
from tests.acceptance.harness import PATIENCE_S, POLL_S, Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled
from tests.rabbit import restartable_rabbitmq
from tests.sentinel import running_group

BATCH = 5


def test_a_primary_behind_sentinels(database_url: str, calm_database_url: str) -> None:
    first, second, third = thirds(load(600, seed=31))
    with (
        running_group() as group,
        Stack(database_url, group.url) as stack,
        Publisher(group.url, source=SOURCE, timeout_s=5) as publisher,
    ):
        # Given the whole system at work. Commands that never reached the replica may be lost
        publish(stack, publisher, first)
        work(stack)
        stack.wait_until_handled(len(first) // 2)
        stack.wait_until(lambda: stack.owed() > 0, "effects to be under way")
        group.wait_for_replica()
        # When the primary is killed
        dead = group.primary()
        group.kill(dead)
        publish(stack, publisher, second)
        # And, when it is back as a replica, the next primary stands still until it has been replaced
        group.start_server(dead)
        stack.wait_until(lambda: group.role(dead) == "slave", "the dead one to be a replica")
        group.wait_for_replica()
        frozen = group.primary()
        group.freeze(frozen)
        group.wait_for_another_primary(frozen)
        publish(stack, publisher, third)
        group.thaw(frozen)
        stack.wait_until(lambda: group.role(frozen) == "slave", "the frozen one to be a replica")
        # Then nothing is lost or doubled
        stack.client.move_to(group.url)
        stack.lms.latency_s = 0
        stack.settle()
        assert_nothing_lost_or_doubled(stack, calm_database_url)


def test_a_node_of_rabbitmq(database_url: str, calm_database_url: str) -> None:
    """Two nodes that know nothing of each other: what a queue keeps when a node dies is a cluster's to say."""
    first, second, third = thirds(load(400, seed=32))
    with restartable_rabbitmq() as one, restartable_rabbitmq() as other:
        url = f"{one.url};{other.url}"
        with Stack(database_url, url) as stack, Publisher(url, source=SOURCE, timeout_s=5) as publisher:
            # Given the whole system at work on the first node, with effects under way and no command waiting. The
            # other one stands still: somebody whom the first one answers late would stay on the other, alone.
            other.pause()
            work(stack)
            stack.lms.latency_s = 0.8  # so slow that effects are left when the commands are through
            publish(stack, publisher, [*first, *second])
            stack.settle_commands()
            stack.wait_until(lambda: stack.owed() > 0, "effects to be under way")
            # When it dies, then everybody goes on with the other one
            other.resume()
            one.end(signal.SIGKILL)
            stack.client.move_to(other.url)
            publish(stack, publisher, third)
            stack.lms.latency_s = 0
            stack.settle()
            assert_nothing_lost_or_doubled(stack, calm_database_url)


def thirds(bodies: Sequence[bytes]) -> list[Sequence[bytes]]:
    size = len(bodies) // 3 + 1
    return [bodies[start : start + size] for start in range(0, len(bodies), size)]


def work(stack: Stack) -> None:
    stack.lms.latency_s = 0.05
    for _ in range(2):
        stack.start("commands", BATCH_SIZE=BATCH)
    for name in ("relay", "effects", "mail"):
        stack.start(name)


def publish(stack: Stack, publisher: Publisher, bodies: Sequence[bytes]) -> None:
    """Publish in order, each again until the broker has taken it, as the publisher's docs say."""
    for body in bodies:
        stack.client.bodies[SOURCE, json.loads(body)["id"]] = body
        deadline = time.monotonic() + PATIENCE_S
        while not is_published(publisher, body):
            assert time.monotonic() < deadline, stack.report()
            time.sleep(POLL_S)


def is_published(publisher: Publisher, body: bytes) -> bool:
    try:
        publisher.publish_raw(body, 0)
    except PublishError:
        return False
    return True
