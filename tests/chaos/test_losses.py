"""What a failover of Redis loses: exactly what no replica had, and no more than the documents say."""

import time
from contextlib import suppress
from typing import NamedTuple, cast

from redis import Redis

from events.errors import PublishError
from events.publisher import Publisher
from events.sharding import queue_name
from tests.chaos.clusters import MAX_LAG_S, NOTICED_S, SERVER_SETTINGS
from tests.chaos.proxy import proxying
from tests.sentinel import running_group
from worker.commands.sources.redis import Place, open_envelope

PATIENCE_S = 60
PAUSE_S = 0.02


def test_what_no_replica_had_is_lost_and_it_is_little() -> None:
    with (
        running_group(replicas=1, settings=SERVER_SETTINGS) as group,
        Publisher(group.url, source="/tests", timeout_s=2) as publisher,
        proxying(f"redis://127.0.0.1:{group.primary()}") as cable,
    ):
        # Given commands that the replica has
        group.follow(group.replica(), cable.listener.getsockname())
        kept = [b"kept %d" % number for number in range(20)]
        for body in kept:
            until_it_is_taken(publisher, body)
        group.wait_for_replica()
        # When the cable between the two is cut, then the primary takes commands for a short time only
        cable.is_silent = True
        taken = publish_until_refused(publisher)
        assert taken
        assert taken[-1].at - taken[0].at < MAX_LAG_S + NOTICED_S
        # And when it dies
        dead = group.primary()
        group.kill(dead)
        cable.cut()
        # Then those are lost, and no others
        with group.client(group.wait_for_another_primary(dead)) as client:
            assert waiting(client) == kept


class Taken(NamedTuple):
    """A command that the broker has acknowledged, and when, in seconds."""

    body: bytes
    at: float


def until_it_is_taken(publisher: Publisher, body: bytes) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(PublishError):
            publisher.publish_raw(body, 0)
            return
        time.sleep(PAUSE_S)
    raise AssertionError("nobody takes it")


def publish_until_refused(publisher: Publisher) -> list[Taken]:
    taken: list[Taken] = []
    deadline = time.monotonic() + PATIENCE_S
    with suppress(PublishError):
        while time.monotonic() < deadline:
            publisher.publish_raw(body := b"taken %d" % len(taken), 0)
            taken.append(Taken(body, time.monotonic()))
            time.sleep(PAUSE_S)
    return taken


def waiting(client: Redis) -> list[bytes]:
    queued = cast("list[bytes]", client.lrange(queue_name(0), 0, -1))
    return [open_envelope(Place("", raw)).body for raw in reversed(queued)]
