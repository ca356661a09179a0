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
