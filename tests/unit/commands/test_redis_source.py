"""The Redis source over a fake client: what is read, in which order, and which error a broken connection raises."""

from collections.abc import Iterator
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer
from redis.exceptions import OutOfMemoryError

from worker.commands.sources import BrokerAwayError
from worker.commands.sources.redis import PRIORITY_SUFFIXES, RedisSource

QUEUE = "invigilator.commands.0"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(server: FakeServer) -> Iterator[FakeRedis]:
    client = FakeRedis(server=server)
    yield client
    client.close()


def test_the_oldest_come_first_and_stay_where_they_are(client: FakeRedis) -> None:
    client.lpush(QUEUE, b"1", b"2", b"3")
    source = RedisSource(client, QUEUE)
    assert [message.body for message in source.take(2, 1)] == [b"1", b"2"]
    assert [message.body for message in source.take(2, 1)] == [b"1", b"2"]
    assert client.lrange(QUEUE, 0, -1) == [b"3", b"2", b"1"]


def test_the_lists_of_all_priorities_share_the_limit(client: FakeRedis) -> None:
    for suffix in reversed(PRIORITY_SUFFIXES):
        client.lpush(QUEUE + suffix, suffix.encode() or b"none")
    taken = RedisSource(client, QUEUE).take(3, 1)
    assert [message.body for message in taken] == [b"none", b"\x06\x163", b"\x06\x166"]


def test_an_empty_queue_is_waited_for_and_gives_nothing(client: FakeRedis) -> None:
    assert RedisSource(client, QUEUE).take(10, 0.01) == []


def test_a_server_whose_memory_is_full_is_read_all_the_same(
    client: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that refuses to wait for a message, as Redis does then
    def refuse(*_: object) -> None:
        client.lpush(QUEUE, b"1")  # somebody has made room meanwhile
        raise OutOfMemoryError

    monkeypatch.setattr(client, "blmove", refuse)
    # When nothing waits, then the next message is found by looking again
    source = RedisSource(client, QUEUE)
    assert source.take(10, 0.01) == []
    assert [message.body for message in source.take(10, 0.01)] == [b"1"]


def test_the_first_that_comes_meanwhile_is_taken_alone_and_stays(
    client: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given two messages that come while the source waits
    move = client.blmove

    def wait(*arguments: Any) -> Any:
        client.lpush(QUEUE, b"1", b"2")
        return move(*arguments)

    monkeypatch.setattr(client, "blmove", wait)
    source = RedisSource(client, QUEUE)
    # When it is woken, then it gives the first without another question to the server
    monkeypatch.setattr(RedisSource, "_peek", lambda *_: [])
    [message] = source.take(10, 1)
    assert message.body == b"1"
    assert client.lrange(QUEUE, 0, -1) == [b"2", b"1"]
    # And the second one waits on after the first is acknowledged
    source.ack([message])
    assert client.lrange(QUEUE, 0, -1) == [b"2"]


def test_a_broken_connection_is_told(server: FakeServer, client: FakeRedis) -> None:
    source = RedisSource(client, QUEUE)
    server.connected = False
    with pytest.raises(BrokerAwayError, match="the broker is away: ConnectionError"):
        source.take(10, 0.01)


def test_a_message_of_no_bytes_and_one_in_another_script_keep_their_places(client: FakeRedis) -> None:
    bodies = [b"1 2", b"", "١".encode(), b"4"]
    client.lpush(QUEUE, *bodies)
    assert [message.body for message in RedisSource(client, QUEUE).take(9, 1)] == bodies


def test_of_a_batch_only_what_is_still_the_tail_is_removed(client: FakeRedis) -> None:
    client.lpush(QUEUE, b"1", b"2", b"3", b"4")
    source = RedisSource(client, QUEUE)
    taken = source.take(3, 1)
    # When a person has removed one of them meanwhile
    client.lrem(QUEUE, 0, "2")
    source.ack(taken)
    # Then those after it stay, and come again
    assert client.lrange(QUEUE, 0, -1) == [b"4", b"3"]
    source.ack(source.take(9, 1))
    assert client.lrange(QUEUE, 0, -1) == []
