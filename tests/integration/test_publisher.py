"""The publisher against a real Valkey: what lies in the list afterwards."""

import base64
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from kombu.transport import redis as kombu_redis

from events import redis_transport
from events.envelope import CONTENT_TYPE, parse
from events.errors import PublishError
from events.publisher import Publisher
from events.sharding import queue_name, shard_of


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def publisher(valkey_url: str) -> Iterator[Publisher]:
    with Publisher(valkey_url, source="/lms/acme", shards=2) as publisher:
        yield publisher


def envelopes(client: redis.Redis, shard: int) -> list[dict[str, Any]]:
    """What kombu wrote, oldest first: publishing pushes on the left."""
    raw: Any = client.lrange(queue_name(shard), 0, -1)
    return [json.loads(line) for line in reversed(raw)]


def test_a_command_is_pushed_to_the_list_of_that_very_name(client: redis.Redis, publisher: Publisher) -> None:
    command_id = publisher.update_status(exam_id=7, user_id=42, to_status="submitted")

    shard = shard_of("42", 2)
    assert client.keys() == [queue_name(shard).encode()]  # no binding, no other priority
    [envelope] = envelopes(client, shard)
    command = parse(base64.b64decode(envelope["body"]), envelope["content-type"])
    assert (command.id, command.data.learner_id) == (command_id, "42")
    assert envelope["content-type"] == CONTENT_TYPE


def test_bytes_arrive_as_they_are(client: redis.Redis, publisher: Publisher) -> None:
    publisher.publish_raw(b"\xff\0 no JSON", 1, "text/plain")

    [envelope] = envelopes(client, 1)
    assert base64.b64decode(envelope["body"]) == b"\xff\0 no JSON"
    assert envelope["content-type"] == "text/plain"


def test_threads_share_a_publisher(client: redis.Redis, publisher: Publisher) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda user: publisher.create_attempt(exam_id=7, user_id=user), range(100)))

    both = envelopes(client, 0) + envelopes(client, 1)
    arrived = [base64.b64decode(envelope["body"]) for envelope in both]
    assert len(arrived) == 100
    assert {parse(body).id for body in arrived} == ids


def test_a_connection_that_the_server_has_closed_is_opened_again(
    client: redis.Redis, publisher: Publisher
) -> None:
    # Given a publisher whose connection the server closes
    publisher.publish_raw(b"1", 0)
    client.client_kill_filter(_type="normal", skipme=True)

    # When it publishes again, then the message arrives, after the first
    publisher.publish_raw(b"2", 0)
    assert [base64.b64decode(envelope["body"]) for envelope in envelopes(client, 0)] == [b"1", b"2"]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every client that is made."""
    clients: list[object] = []
    build = redis.Redis.__init__

    def recorded(self: redis.Redis, *arguments: Any, **options: Any) -> None:
        clients.append(self)
        build(self, *arguments, **options)

    monkeypatch.setattr(redis.Redis, "__init__", recorded)
    return clients


def test_one_client_serves_a_publisher(publisher: Publisher, built: list[object]) -> None:
    # Given a publisher that has connected
    publisher.publish_raw(b"1", 0)
    built.clear()
    # When it publishes more, then nothing is built for that
    for number in range(10):
        publisher.publish_raw(b"%d" % number, 0)
    assert built == []
    # When its channel has lost its connections, as after a fork, then it has another client
    publisher._producer.channel._disconnect_pools()
    for number in range(10):
        publisher.publish_raw(b"%d" % number, 0)
    assert len(built) == 1


def test_kombu_is_left_as_it_is_when_asked_for(
    client: redis.Redis, valkey_url: str, built: list[object]
) -> None:
    with Publisher(valkey_url, source="/lms/acme", reuse_redis_client=False) as publisher:
        publisher.publish_raw(b"1", 0)
        built.clear()
        publisher.publish_raw(b"2", 0)
    assert len(envelopes(client, 0)) == 2
    assert built


def test_a_command_costs_redis_one_command(client: redis.Redis, publisher: Publisher) -> None:
    publisher.publish_raw(b"1", 0)
    client.config_resetstat()
    for user in range(10):
        publisher.create_attempt(exam_id=7, user_id=user)
    calls = {name: stats["calls"] for name, stats in client.info("commandstats").items()}
    assert calls == {"cmdstat_lpush": 10, "cmdstat_config|resetstat": 1}


def test_nobody_elses_kombu_is_touched() -> None:
    assert issubclass(redis_transport.Channel, kombu_redis.Channel)
    assert kombu_redis.Transport.Channel is kombu_redis.Channel


def test_a_server_that_refuses_to_write_raises(client: redis.Redis, publisher: Publisher) -> None:
    # Given a list that is no list
    client.set(queue_name(0), "x")

    with pytest.raises(PublishError, match="the broker did not take the message"):
        publisher.publish_raw(b"{}", 0)

    # And once it is gone, the same publisher publishes
    client.delete(queue_name(0))
    publisher.publish_raw(b"{}", 0)
    assert len(envelopes(client, 0)) == 1


def test_a_server_that_is_away_raises() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    publisher = Publisher(f"redis://:secret@127.0.0.1:{port}", source="/lms/acme", timeout_s=1)

    with pytest.raises(PublishError) as caught, publisher:
        publisher.create_attempt(exam_id=7, user_id=42, command_id="5f0c")

    assert caught.value.command_id == "5f0c"
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"
