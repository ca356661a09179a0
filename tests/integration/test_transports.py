"""Our connections to Redis: what they leave alone when they are dropped or closed."""

import socket
from typing import Any

import pytest
from kombu import Consumer, Queue
from kombu.transport import get_transport_cls
from redis import Redis

from events.broker_url import read_broker_url
from events.connecting import Connection, OneClientConnection

QUEUE = "q"
OURS = sorted(
    {
        name
        for kind in (Connection, OneClientConnection)
        for name in kind.transports.values()
        if "redis_transport" in name
    }
)
both = pytest.mark.parametrize("kind", [Connection, OneClientConnection])


def connect(kind: type[Connection], url: str) -> Connection:
    options = {"ack_emulation": False}
    return kind.to(read_broker_url(url), timeout_s=10, transport_options=options)


@both
def test_a_dropped_connection_changes_no_other_socket(
    kind: type[Connection], valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[object] = []
    monkeypatch.setattr(socket, "setdefaulttimeout", changes.append)
    with connect(kind, valkey_url) as connection:
        # When it is dropped before and after it has connected
        connection.collect(socket_timeout=1)
        connection.default_channel.client.ping()
        connection.collect(socket_timeout=1)
        # Then the default time-out of sockets was not touched, and the connection can be used again
        assert changes == []
        assert not connection.connected
        assert connection.default_channel.client.ping()


@both
def test_a_message_that_was_not_acknowledged_is_not_put_back(kind: type[Connection], valkey_url: str) -> None:
    with Redis.from_url(valkey_url) as client:
        # Given a consumer that has a message in hand
        taken: list[object] = []
        connection = connect(kind, valkey_url)
        with connection.Producer() as producer:
            producer.publish({}, routing_key=QUEUE)
        Consumer(connection.default_channel, [Queue(QUEUE)], on_message=taken.append).consume()
        connection.drain_events(timeout=60)
        assert len(taken) == 1
        # When its connection is closed, then the queue stays empty
        connection.release()
        assert client.llen(QUEUE) == 0


@pytest.mark.parametrize("name", OURS)
def test_no_transport_puts_anything_back(name: str) -> None:
    transport: Any = get_transport_cls(name)
    assert not transport.Channel.do_restore


@pytest.mark.parametrize(("takes_several", "pops"), [(True, 2), (False, 5)])
def test_a_consumer_takes_what_it_has_room_for_at_once(
    takes_several: bool, pops: int, valkey_url: str
) -> None:
    """A server older than Redis 7 is asked for each message, as kombu does it."""
    with Redis.from_url(valkey_url) as client, connect(Connection, valkey_url) as connection:
        # Given two queues, and a consumer that takes four messages before it acknowledges one
        channel = connection.default_channel
        assert channel.takes_several
        channel.takes_several = takes_several
        taken: list[Any] = []
        consumer = Consumer(channel, [Queue("many"), Queue("few")], on_message=taken.append)
        consumer.qos(prefetch_count=4)
        with connection.Producer() as producer:
            for number in range(5):
                producer.publish({"number": number}, routing_key="many")
        client.config_resetstat()
        consumer.consume()
        # When it receives all it can
        while len(taken) < 4:
            connection.drain_events(timeout=60)
        # Then one message waits until there is room again
        assert client.llen("many") == 1
        for message in taken[:]:
            message.ack()
        connection.drain_events(timeout=60)
        assert [message.payload["number"] for message in taken] == list(range(5))
        stats = client.info("commandstats")
        assert stats["cmdstat_blmpop" if takes_several else "cmdstat_brpop"]["calls"] == pops
