"""What is sent in time, and where it goes."""

import time
from collections.abc import Iterator
from itertools import chain, repeat

import pytest
from kombu.connection import Connection
from kombu.transport.memory import Channel

from events.errors import PublishError
from events.sender import Parcel, Sender
from events.shard_count import Ask, ShardCount, Silence
from events.sharding import Announcement, queue_name

PARCEL = Parcel(b"{}", "application/json", {}, "5f0c", lambda shards: range(shards))


@pytest.fixture(autouse=True)
def _empty_queues() -> Iterator[None]:
    Channel.queues.clear()
    yield
    Channel.queues.clear()


def sender(shards: ShardCount, ask_shards: Ask | None = None) -> Sender:
    return Sender(
        Connection("memory://"),
        shards=shards,
        mandatory=False,
        ask_shards=ask_shards,
        retries={"max_retries": 3},
        timeout_s=1,
    )


def test_nothing_is_begun_after_the_deadline() -> None:
    # Given a message whose time is over when its turn comes
    one = sender(ShardCount(2))
    # Then it is not sent
    with pytest.raises(PublishError, match=r"\(TimeoutError\)") as caught:
        one.send(PARCEL, time.monotonic())
    assert caught.value.command_id == "5f0c"
    assert not any(queue.qsize() for queue in Channel.queues.values())


def test_a_connection_is_not_made_when_there_is_hardly_any_time() -> None:
    # Given messages whose time is almost over
    hurried = Sender(
        Connection("memory://"),
        shards=ShardCount(2),
        mandatory=False,
        ask_shards=None,
        retries={},
        timeout_s=1_000_000,
    )
    # Then nobody is connected to for them
    with pytest.raises(PublishError, match=r"\(TimeoutError\)"):
        hurried.send(PARCEL, time.monotonic() + 1_000)
    # But on a connection that is there they are sent
    hurried.send(PARCEL, time.monotonic() + 500_000)
    hurried.send(PARCEL, time.monotonic() + 1_000)
    assert Channel.queues[queue_name(0)].qsize() == 2


def test_a_message_goes_to_each_of_its_shards() -> None:
    one = sender(ShardCount(2))
    one.send(PARCEL, time.monotonic() + 60)
    one.close()
    assert [Channel.queues[queue_name(shard)].qsize() for shard in range(2)] == [1, 1]


def test_it_waits_while_the_broker_does_not_say_whether_the_number_has_changed() -> None:
    # Given a number that is about to change, and a broker that is emptied and then told the new one
    said: list[Announcement | Silence] = [
        Announcement(1, next=2),
        Silence.UNTOLD,
        Silence.QUIET,
        Announcement(2),
    ]
    answers = iter(said)
    one = sender(ShardCount(None), lambda _channel: next(answers))
    one.send(PARCEL, time.monotonic() + 60)
    # When a message is sent, then it goes by the new number
    one.send(PARCEL, time.monotonic() + 60)
    one.close()
    assert [Channel.queues[queue_name(shard)].qsize() for shard in range(2)] == [2, 1]


def test_it_does_not_wait_for_longer_than_there_is_time() -> None:
    answers = chain[Announcement | Silence]([Announcement(1, next=2)], repeat(Silence.QUIET))
    one = sender(ShardCount(None), lambda _channel: next(answers))
    one.send(PARCEL, time.monotonic() + 60)
    with pytest.raises(PublishError, match=r"\(TimeoutError\)"):
        one.send(PARCEL, time.monotonic() + 0.2)
    one.close()
    assert Channel.queues[queue_name(0)].qsize() == 1
