"""One suite for both sources: order, redelivery, batches."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.parse import urlsplit

import amqp
import psutil
import pytest
from amqp import serialization
from kombu import Connection
from redis import Redis
from structlog.typing import EventDict

from events import shard_count
from events.publisher import Publisher
from events.shard_count import Silence, ask_rabbitmq
from events.sharding import NEXT_SHARDS_KEY, SHARDS_KEY, Announcement, queue_name
from invigilator.local.server import free_port
from tests.engines import running_valkey
from tests.integration.commands.test_consumer import until
from tests.rabbit import running_rabbitmq
from worker import patches
from worker.commands.sources import BrokerAwayError, Message, Source, open_source, rabbitmq
from worker.commands.sources.base import Depth
from worker.commands.sources.brokers import depths, queued
from worker.commands.sources.rabbitmq import STREAM_ARGUMENTS
from worker.commands.sources.redis import PRIORITY_SUFFIXES
from worker.errors import ConfigurationError
from worker.patches import Process
from worker.settings import Settings

LIMIT = 10


@dataclass
class Broker:
    """A broker with a queue of its own."""

    url: str
    shard: int

    @property
    def queue(self) -> str:
        return queue_name(self.shard)

    def open(self) -> Source:
        return open_source(self.url, self.queue, LIMIT)

    def publish(self, *bodies: bytes, shards: int | None = None) -> None:
        with Publisher(self.url, source="/tests", shards=shards, assumed_shards=self.shard + 1) as publisher:
            for body in bodies:
                publisher.publish_raw(body, self.shard)


_shards = iter(range(1, 1000))


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    broker = Broker(request.getfixturevalue(f"{request.param}_url"), next(_shards))
    with broker.open():  # RabbitMQ's queue is declared by whoever consumes
        pass
    return broker


def bodies(source: Source, limit: int = LIMIT) -> list[bytes]:
    return [message.body for message in source.take(limit, 1)]


def test_messages_come_in_the_order_of_publication(broker: Broker) -> None:
    broker.publish(b"1", b"2", b"3")
    with broker.open() as source:
        taken = list(source.take(LIMIT, 1))
        while len(taken) < 3:
            taken += source.take(LIMIT, 1)
    assert [message.body for message in taken] == [b"1", b"2", b"3"]
    assert {message.content_type for message in taken} == {"application/cloudevents+json"}


def test_what_is_not_acknowledged_comes_again(broker: Broker) -> None:
    # Given a reader that takes two messages and goes
    broker.publish(b"1", b"2", b"3")
    with broker.open() as source:
        first = source.take(2, 1)
        source.ack(first[:1])
    # When another one comes
    with broker.open() as source:
        again = take_all(source, 2)
    # Then it gets everything that was not acknowledged, in order
    assert again == [b"2", b"3"]


def test_an_acknowledged_batch_is_gone(broker: Broker) -> None:
    broker.publish(*[str(number).encode() for number in range(25)])
    seen = []
    with broker.open() as source:
        while batch := source.take(LIMIT, 1):
            assert len(batch) <= LIMIT
            seen += [message.body for message in batch]
            source.ack(batch)
    with broker.open() as source:
        assert source.take(LIMIT, 0.1) == []
    assert seen == [str(number).encode() for number in range(25)]


def test_an_empty_queue_gives_nothing(broker: Broker) -> None:
    with broker.open() as source:
        assert source.take(LIMIT, 0.1) == []
        assert source.held() == 0
        assert source.is_empty()


def test_what_waits_is_counted_on_every_broker(broker: Broker) -> None:
    # Given two messages in one queue, and another queue that does not exist
    broker.publish(b"1", b"2")
    queues = [broker.queue, "nowhere"]
    # RabbitMQ may count before it has put a message into its queue.
    until(lambda: [depth.messages for depth in depths(broker.url, queues)] == [2, 0])
    # Then consumers are counted where the broker counts them
    counted = None if broker.url.startswith("redis") else 0
    assert depths(broker.url, queues) == [Depth(broker.queue, 2, counted), Depth("nowhere", 0, counted)]


def take_all(source: Source, count: int) -> list[bytes]:
    taken: list[bytes] = []
    while len(taken) < count:
        taken += bodies(source)
    return taken


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_a_broker_that_is_away_says_so(url: str) -> None:
    with pytest.raises(BrokerAwayError, match="the broker is away: "):
        open_source(url, queue_name(0), LIMIT)


# --- Redis alone ---------------------------------------------------------------------------------------


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as client:
        yield client


QUEUE = queue_name(0)


def test_a_bare_event_is_taken_as_it_is(valkey_url: str, client: Redis) -> None:
    body = json.dumps({"specversion": "1.0", "body": "not an envelope"}).encode()
    client.lpush(QUEUE, body)
    with open_source(valkey_url, QUEUE, LIMIT) as source:
        [message] = source.take(LIMIT, 1)
    assert (message.body, message.content_type) == (body, None)


def test_every_priority_of_kombu_is_read(valkey_url: str) -> None:
    with Connection(valkey_url) as connection, connection.Producer() as producer:
        for priority in (9, 0, 6, 3):
            producer.publish({"p": priority}, routing_key=QUEUE, serializer="json", priority=priority)
    with open_source(valkey_url, QUEUE, LIMIT) as source:
        batch = source.take(LIMIT, 1)
        source.ack(batch)
        assert source.take(LIMIT, 0.1) == []
    assert sorted(json.loads(message.body)["p"] for message in batch) == [0, 3, 6, 9]
    assert batch[0].content_type == "application/json"


def test_a_plain_envelope_is_opened(valkey_url: str, client: Redis) -> None:
    envelope = {"body": "{}", "content-type": "text/plain", "headers": {"x": 1}, "properties": {}}
    client.lpush(QUEUE, json.dumps(envelope))
    with open_source(valkey_url, QUEUE, LIMIT) as source:
        [message] = source.take(LIMIT, 1)
    assert (message.body, message.content_type, message.headers) == (b"{}", "text/plain", {"x": 1})


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense",
        b"\xff\xfe",
        b"[1, 2]",
        b'{"no": "envelope"}',
        b'{"body": 7, "properties": {}}',
        b'{"body": "!", "properties": {"body_encoding": "base64"}}',
        b'{"body": "", "properties": {}, "headers": 7}',
        b"[" * 50_000,
        b'"' + b"x" * 200_000 + b'"',
    ],
    ids=["text", "bytes", "list", "dict", "number", "base64", "headers", "deep", "large"],
)
def test_what_is_no_envelope_is_kept_as_it_is(valkey_url: str, client: Redis, raw: bytes) -> None:
    client.lpush(QUEUE, raw)
    with open_source(valkey_url, QUEUE, LIMIT) as source:
        [message] = source.take(LIMIT, 1)
    assert message.body == raw


def test_a_late_owner_pops_nothing_of_its_successors(valkey_url: str, client: Redis) -> None:
    # Given two owners that have read the same batch
    client.lpush(QUEUE, b"1", b"2")
    with open_source(valkey_url, QUEUE, LIMIT) as old, open_source(valkey_url, QUEUE, LIMIT) as new:
        late = old.take(LIMIT, 1)
        new.ack(new.take(LIMIT, 1))
        client.lpush(QUEUE, b"3")
        # When the late one acknowledges too
        old.ack(late)
        # Then the new message is still there
        assert bodies(new) == [b"3"]


def test_an_answer_that_is_an_error_is_told(valkey_url: str, client: Redis) -> None:
    with open_source(valkey_url, QUEUE, LIMIT) as source:
        client.set(QUEUE, "no list")
        with pytest.raises(BrokerAwayError, match="WRONGTYPE"):
            source.take(LIMIT, 0.1)


# --- RabbitMQ alone ------------------------------------------------------------------------------------


def test_a_queue_with_other_arguments_is_refused(rabbitmq_url: str) -> None:
    name = f"other.{uuid.uuid4().hex}"
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_declare(name, durable=True, auto_delete=False)
    with pytest.raises(ConfigurationError, match=f"queue {name} exists with other arguments"):
        open_source(rabbitmq_url, name, LIMIT)


def test_another_refusal_of_the_queue_is_a_broker_that_is_away(rabbitmq_url: str) -> None:
    with pytest.raises(BrokerAwayError, match="reserved"):
        open_source(rabbitmq_url, "amq.reserved", LIMIT)


@pytest.mark.parametrize(
    ("answers_within_s", "says"), [(0.0, "does not serve queue"), (60.0, "^the broker is away: Conn")]
)
def test_a_queue_that_is_not_served_is_named(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch, answers_within_s: float, says: str
) -> None:
    # Given a broker that ends the connection instead of an answer, soon or late
    def reset(*_: object, **__: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(amqp.Channel, "basic_consume", reset)
    monkeypatch.setattr(rabbitmq, "ANSWER_TIMEOUT_S", answers_within_s)
    with pytest.raises(BrokerAwayError, match=says):
        Broker(rabbitmq_url, next(_shards)).open()


def test_no_more_is_taken_than_asked_for(rabbitmq_url: str) -> None:
    broker = Broker(rabbitmq_url, next(_shards))
    with broker.open() as source:
        broker.publish(b"1", b"2", b"3")
        taken: list[bytes] = []
        while len(taken) < 3:
            batch = source.take(1, 1)
            assert len(batch) <= 1
            taken += [message.body for message in batch]
    assert taken == [b"1", b"2", b"3"]


def test_a_reader_knows_how_many_messages_it_holds(rabbitmq_url: str) -> None:
    # Given more messages than are asked for
    broker = Broker(rabbitmq_url, next(_shards))
    with broker.open() as source:
        broker.publish(*[str(number).encode() for number in range(LIMIT + 5)])
        # When they are taken one at a time, then it knows of the others as soon as they have arrived
        taken = 0
        while taken + source.held() < LIMIT + 5:
            taken += len(source.take(1, 1))
            assert taken < LIMIT


def test_a_successor_gets_nothing_before_its_predecessor_has_gone(rabbitmq_url: str) -> None:
    broker = Broker(rabbitmq_url, next(_shards))
    with broker.open() as old:
        broker.publish(b"1", b"2")
        first = take_all(old, 2)
        with broker.open() as new:
            assert new.take(LIMIT, 0.3) == []
            old.close()
            assert take_all(new, 2) == first


def test_a_queue_that_gives_a_successor_nothing_is_not_taken_for_empty(rabbitmq_url: str) -> None:
    # Given a predecessor that stands still with as many messages as it is sent, and more that wait
    broker = Broker(rabbitmq_url, next(_shards))
    with broker.open() as old:
        broker.publish(*[b"1"] * (2 * LIMIT + 1))
        until(lambda: old.take(LIMIT, 1) == [])
        with broker.open() as new:
            assert new.take(LIMIT, 0.1) == []
            assert not new.is_empty()


def test_a_queue_that_is_somebody_elses_cannot_be_counted(rabbitmq_url: str) -> None:
    shard = next(_shards)
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_declare(queue_name(shard), exclusive=True)
        with pytest.raises(BrokerAwayError, match="ResourceLocked"):
            queued(rabbitmq_url, shard + 1)


def test_headers_that_cannot_be_decoded_do_not_hide_the_body(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches.apply(Process.CONSUME, Settings())
    # Given a message whose header is a time stamp in milliseconds: the year 55840
    broker = Broker(rabbitmq_url, next(_shards))
    with broker.open() as source:
        monkeypatch.setattr(serialization, "calendar", SimpleNamespace(timegm=lambda _: 1_700_000_000_000))
        with Connection(rabbitmq_url) as connection, connection.Producer() as producer:
            producer.publish(
                b"body",
                routing_key=broker.queue,
                content_type="application/json",
                content_encoding="binary",
                headers={"sent-at": datetime(2026, 3, 1, tzinfo=UTC)},
            )
        broker.publish(b"next")
        # When it is read, then it comes like any other
        assert take_all(source, 2) == [b"body", b"next"]


def test_a_frozen_broker_does_not_hold_the_reader_for_ever() -> None:
    # Given a broker that is stopped while a reader is connected
    with running_rabbitmq() as url:
        source = open_source(url, queue_name(0), LIMIT)
        server = listener(url)
        server.suspend()
        # When the reader closes, then it does not wait until the broker goes on
        try:
            source.close()
            assert server.status() == psutil.STATUS_STOPPED
        finally:
            server.resume()


def listener(url: str) -> psutil.Process:
    """The process that listens where a URL says."""
    port = urlsplit(url).port
    return next(
        process
        for process in psutil.Process().children(recursive=True)
        if any(
            one.laddr.port == port for one in process.net_connections() if one.status == psutil.CONN_LISTEN
        )
    )


def test_a_server_that_only_reads_is_refused() -> None:
    # Given a server that has become a replica: what is committed from there could never be acknowledged
    with running_valkey() as server, Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", free_port())
        with pytest.raises(BrokerAwayError, match="read only"):
            open_source(server.url, queue_name(0), LIMIT)


class TestAnnouncing:
    """How many shards there are, where publishers look."""

    def test_it_stands_on_redis(self, valkey_url: str) -> None:
        with open_source(valkey_url, queue_name(0), LIMIT) as source, Redis.from_url(valkey_url) as client:
            assert source.told() is None
            for shards in (4, 12):
                source.announce(Announcement(shards), source.told())
                assert source.told()
                assert (client.get(SHARDS_KEY), client.get(NEXT_SHARDS_KEY)) == (b"%d" % shards, None)
            # and the one to come, for as long as it is to come
            source.announce(Announcement(12, next=24, version=1), source.told())
            assert (client.get(SHARDS_KEY), client.get(NEXT_SHARDS_KEY)) == (b"12", b"24")
            source.announce(Announcement(24, version=2), source.told())
            assert (client.get(SHARDS_KEY), client.get(NEXT_SHARDS_KEY)) == (b"24", None)
            # and an owner that stood still meanwhile changes nothing
            source.announce(Announcement(12, next=24, version=1), source.told())
            assert (client.get(SHARDS_KEY), client.get(NEXT_SHARDS_KEY)) == (b"24", None)

    def test_it_is_the_last_of_a_stream_on_rabbitmq(self, rabbitmq_url: str) -> None:
        broker = Broker(rabbitmq_url, 0)
        with broker.open() as source, Connection(rabbitmq_url) as connection:
            channel = connection.default_channel
            assert ask_rabbitmq(channel) is Silence.UNTOLD  # there is no such queue
            assert source.told() is None
            for told in (Announcement(4), Announcement(4, next=8, version=1), Announcement(8, version=2)):
                assert source.announce(told, source.told())
                assert source.announce(told, source.told())
                assert ask_rabbitmq(channel) == told
            assert source.told()
            # and also after an owner that stood still has told an older one
            with broker.open() as late:
                assert late.announce(Announcement(4), late.told())
            assert source.announce(told, source.told())
            assert ask_rabbitmq(channel) == told
            # and after the stream was deleted
            channel.queue_delete(SHARDS_KEY)
            assert source.announce(told, source.told())
            assert ask_rabbitmq(channel) == told
            # and who subscribes to commands is not disturbed
            broker.publish(b"1", shards=8)
            assert take_all(source, 1) == [b"1"]

    def test_what_is_no_announcement_is_passed_over(
        self, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shard_count, "STREAM_TIMEOUT_S", 0.5)
        with Connection(rabbitmq_url) as connection:
            channel = connection.default_channel
            channel.queue_declare(SHARDS_KEY, durable=True, auto_delete=False, arguments=STREAM_ARGUMENTS)
            assert ask_rabbitmq(channel) is Silence.QUIET
            connection.Producer().publish("nonsense", routing_key=SHARDS_KEY, exchange="")
            assert ask_rabbitmq(channel) is Silence.QUIET

    def test_a_queue_of_that_name_that_is_no_stream_is_left_alone(
        self, rabbitmq_url: str, logged: list[EventDict]
    ) -> None:
        broker = Broker(rabbitmq_url, next(_shards))
        with broker.open() as source, Connection(rabbitmq_url) as connection:
            connection.default_channel.queue_declare(SHARDS_KEY, durable=True, auto_delete=False)
            assert not source.announce(Announcement(4), source.told())
            [line] = [one for one in logged if one["event"] == "the number of shards was not announced"]
            assert (line["key"], line["reason"]) == (SHARDS_KEY, "PreconditionFailed")
            broker.publish(b"1", shards=broker.shard + 1)
            assert take_all(source, 1) == [b"1"]

    def test_a_key_that_is_no_string_is_written_anew(self) -> None:
        with running_valkey() as server, Redis.from_url(server.url, decode_responses=True) as client:
            client.lpush(SHARDS_KEY, "4")
            with open_source(server.url, queue_name(0), LIMIT) as source:
                assert source.announce(Announcement(8), source.told())
            assert client.get(SHARDS_KEY) == "8"

    @pytest.mark.parametrize("reason", ["OutOfMemoryError", "NoPermissionError"])
    def test_a_server_that_does_not_take_it_is_read_all_the_same(
        self, reason: str, logged: list[EventDict]
    ) -> None:
        # Given a command, and a server that has no room for more, or gives no right to the key
        with running_valkey() as server, Redis.from_url(server.url) as client:
            client.lpush(queue_name(0), b"1")
            user = urlsplit(server.url).username or "default"
            with open_source(server.url, queue_name(0), LIMIT) as source:
                if reason == "OutOfMemoryError":
                    client.config_set("maxmemory-policy", "noeviction")
                    client.config_set("maxmemory", 1)
                else:
                    client.acl_setuser(user, commands=["-set", "-get"])
                # When publishers are to be told, then that is warned of, and the command is read
                source.announce(Announcement(4), source.told())
                [line] = logged
                assert (line["key"], line["reason"]) == (SHARDS_KEY, reason)
                assert [message.body for message in source.take(LIMIT, 0.1)] == [b"1"]

    def test_a_server_that_has_gone_ends_it(self) -> None:
        with running_valkey() as server:
            source = open_source(server.url, queue_name(0), LIMIT)
        with pytest.raises(BrokerAwayError):
            source.announce(Announcement(4), source.told())


class TestBarriers:
    """What comes after everything that waits, and what is given back."""

    def test_it_comes_last(self, broker: Broker) -> None:
        with broker.open() as source:
            broker.publish(b"1", b"2")
            source.put_barrier(b"barrier")
            broker.publish(b"3")
            assert take_all(source, 4) == [b"1", b"2", b"barrier", b"3"]

    def test_it_comes_after_what_has_a_lower_priority(self, valkey_url: str) -> None:
        queue = queue_name(0)
        with open_source(valkey_url, queue, LIMIT) as source, Redis.from_url(valkey_url) as client:
            client.lpush(queue + PRIORITY_SUFFIXES[2], b"low")
            client.lpush(queue, b"high")
            source.put_barrier(b"barrier")
            assert [one.body for one in source.take(LIMIT, 0.1)] == [b"high", b"low", b"barrier"]

    def test_what_is_given_back_is_taken_again(self, broker: Broker) -> None:
        with broker.open() as source:
            broker.publish(b"1", b"2", b"3")
            first = taken_whole(source, 3)
            source.ack(first[:1])
            source.put_back(first[1:])
            assert [one.body for one in taken_whole(source, 2)] == [b"2", b"3"]


def taken_whole(source: Source, number: int) -> list[Message]:
    """Take until there are so many, none of which is acknowledged in between."""
    taken: list[Message] = []
    while len(taken) < number:
        source.put_back(taken)
        taken = list(source.take(LIMIT, 1.0))
    return taken
