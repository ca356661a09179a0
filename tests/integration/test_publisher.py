"""The publisher against a real Valkey: what lies in the list afterwards."""

import asyncio
import base64
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from kombu.transport import redis as kombu_redis

from events import redis_transport, shard_count
from events.envelope import CONTENT_TYPE, parse
from events.errors import PublishError, ShardsMismatchError
from events.publisher import AsyncPublisher, Publisher
from events.sharding import NEXT_SHARDS_KEY, SHARDS_KEY, queue_name, shard_of

LONG_S = 600.0
SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


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


def test_one_client_with_one_connection_serves_a_publisher(
    publisher: Publisher, built: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a publisher that has connected
    publisher.publish_raw(b"1", 0)
    built.clear()
    # When it publishes more, then nothing is built or borrowed for that
    borrow = redis.ConnectionPool.get_connection
    borrowed: list[object] = []

    def recorded(self: redis.ConnectionPool, *arguments: Any) -> Any:
        borrowed.append(self)
        return borrow(self, *arguments)

    monkeypatch.setattr(redis.ConnectionPool, "get_connection", recorded)
    for number in range(10):
        publisher.publish_raw(b"%d" % number, 0)
    assert (built, borrowed) == ([], [])


FORKED = """
import sys
import billiard
from events.broker_url import read_broker_url
from events.connecting import OneClientConnection

connection = OneClientConnection.to(read_broker_url(sys.argv[1]), timeout_s=60, transport_options={})
channel = connection.default_channel
with channel.conn_or_acquire() as before, channel.conn_or_acquire() as again:
    assert again is before

def check():
    with channel.conn_or_acquire() as after, channel.conn_or_acquire() as again:
        assert after is not before
        assert again is after
        assert after.ping()

child = billiard.get_context("fork").Process(target=check)
child.start()
child.join()
connection.close()
sys.exit(child.exitcode)
"""


def test_a_channel_has_another_client_after_a_fork(valkey_url: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", FORKED, valkey_url],
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


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
    client.set(SHARDS_KEY, 2)
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


class TestNumberOfShards:
    """What the broker says, and what the publisher was told."""

    @pytest.fixture
    def learning(self, valkey_url: str) -> Iterator[Publisher]:
        """A publisher that was not told how many shards there are."""
        with Publisher(valkey_url, source="/lms/acme") as publisher:
            yield publisher

    def arrived(self, client: redis.Redis) -> list[int]:
        """How many commands are in each of the first eight shards."""
        return [len(envelopes(client, shard)) for shard in range(8)]

    def test_it_is_the_brokers(self, client: redis.Redis, learning: Publisher) -> None:
        client.set(SHARDS_KEY, 4)
        learning.create_attempt(exam_id=7, user_id=42)
        learning.upsert_course(course_id="c1")

        assert learning.shards == 4
        assert self.arrived(client) == [1 + (shard == shard_of("42", 4)) for shard in range(4)] + [0] * 4

    def test_threads_and_tasks_learn_it_alike(self, client: redis.Redis, valkey_url: str) -> None:
        client.set(SHARDS_KEY, 4)

        async def publish() -> None:
            async with AsyncPublisher(valkey_url, source="/lms/acme") as publisher:
                await publisher.create_attempt(exam_id=7, user_id=42)
                assert publisher.shards == 4

        asyncio.run(publish())
        assert len(envelopes(client, shard_of("42", 4))) == 1

    def test_without_one_it_is_one_and_somebody_is_told_once(
        self,
        client: redis.Redis,
        learning: Publisher,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(shard_count, "ASK_AGAIN_S", 0)
        for _ in range(3):
            learning.create_attempt(exam_id=7, user_id=42)

        assert len(envelopes(client, 0)) == 3
        assert caplog.text.count("the broker does not say how many shards there are") == 1

    def test_another_one_than_told_is_refused(self, client: redis.Redis, publisher: Publisher) -> None:
        # Given a publisher that counts on 2, and a system that has 4
        client.set(SHARDS_KEY, 4)
        for _ in range(2):
            # When it publishes, then nothing is sent, and the error names both numbers and the command
            with pytest.raises(
                ShardsMismatchError, match=r"there are 2 shards, but the broker says 4"
            ) as caught:
                publisher.upsert_course(course_id="c1", command_id="5f0c")
            assert isinstance(caught.value, PublishError)
            assert caught.value.command_id == "5f0c"
            assert "\n" not in str(caught.value)
        assert self.arrived(client) == [0] * 8
        # And once they agree, it publishes
        client.set(SHARDS_KEY, 2)
        publisher.upsert_course(course_id="c1", command_id="5f0c")
        assert self.arrived(client) == [1, 1] + [0] * 6

    @pytest.mark.parametrize("said", [None, "", "four", "0", "-1", "1025", "9" * 5000, ["a list"]])
    def test_what_is_no_number_counts_as_none(
        self, client: redis.Redis, publisher: Publisher, said: object, caplog: pytest.LogCaptureFixture
    ) -> None:
        if isinstance(said, list):
            client.rpush(SHARDS_KEY, *said)
        elif said is not None:
            client.set(SHARDS_KEY, str(said))

        publisher.upsert_course(course_id="c1")
        publisher.upsert_course(course_id="c2")

        assert self.arrived(client) == [2, 2] + [0] * 6
        assert caplog.text.count("invigilator.commands.shards is missing or may not be read") == 1

    def test_who_may_not_read_it_publishes_as_told(
        self, client: redis.Redis, valkey_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given a user who may do what docs/security.md gives an LMS, but read the number
        client.set(SHARDS_KEY, 4)
        # When it publishes, then the command arrives, and somebody is told
        with Publisher(self.lms(client, valkey_url, "-get"), source="/lms/acme", shards=2) as publisher:
            publisher.upsert_course(course_id="c1")
        assert self.arrived(client) == [1, 1] + [0] * 6
        assert "may not be read" in caplog.text

    def test_the_rights_of_an_lms_are_enough(
        self, client: redis.Redis, valkey_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        client.set(SHARDS_KEY, 4)
        with Publisher(self.lms(client, valkey_url, "+get"), source="/lms/acme") as publisher:
            publisher.upsert_course(course_id="c1")
        assert self.arrived(client) == [1] * 4 + [0] * 4
        assert caplog.text == ""

    def lms(self, client: redis.Redis, url: str, *more: str) -> str:
        """The URL for a user that has the documented rights, and more or fewer."""
        [rights] = re.findall(r"^ACL SETUSER lms on >… (.*)$", SECURITY.read_text("utf-8"), re.MULTILINE)
        run: Any = client.execute_command
        run("ACL", "SETUSER", "lms", "reset", "on", "nopass", *rights.split(), *more)
        parts = urlsplit(url)
        return parts._replace(netloc=f"lms:any@{parts.hostname}:{parts.port}").geturl()

    def test_a_new_number_is_learned_in_time(
        self, client: redis.Redis, learning: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a publisher that has learned a number, which has changed since
        monkeypatch.setattr(shard_count, "ASK_EVERY_S", LONG_S)
        client.set(SHARDS_KEY, 2)
        learning.upsert_course(course_id="c1")
        client.set(SHARDS_KEY, 4)
        # When it goes on before it is time to ask, then it does not know
        learning.upsert_course(course_id="c1")
        assert self.arrived(client) == [2, 2] + [0] * 6
        # When it connects anew, then it does
        monkeypatch.setattr(shard_count, "ASK_EVERY_S", 0)
        learning.close()
        learning.upsert_course(course_id="c1")
        assert self.arrived(client) == [3, 3, 1, 1] + [0] * 4
        # And when it is time to ask
        client.set(SHARDS_KEY, 8)
        learning.upsert_course(course_id="c1")
        assert self.arrived(client) == [4, 4, 2, 2, 1, 1, 1, 1]

    def test_it_asks_before_each_message_while_the_number_is_about_to_change(
        self, client: redis.Redis, learning: Publisher
    ) -> None:
        client.set(SHARDS_KEY, 2)
        client.set(NEXT_SHARDS_KEY, 4)
        learning.upsert_course(course_id="c1")
        client.set(SHARDS_KEY, 4)
        client.delete(NEXT_SHARDS_KEY)
        learning.upsert_course(course_id="c1")
        assert self.arrived(client) == [2, 2, 1, 1] + [0] * 4

    def test_an_emptied_broker_does_not_make_it_forget(
        self, client: redis.Redis, learning: Publisher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shard_count, "ASK_EVERY_S", 0)
        client.set(SHARDS_KEY, 4)
        learning.upsert_course(course_id="c1")
        client.flushall()
        learning.upsert_course(course_id="c1")
        assert self.arrived(client) == [1] * 4 + [0] * 4

    def test_a_shard_that_the_broker_does_not_have_is_refused(
        self, client: redis.Redis, learning: Publisher
    ) -> None:
        client.set(SHARDS_KEY, 4)
        learning.publish_raw(b"1", 3)
        with pytest.raises(ValueError, match="shard must be from 0 to 3"):
            learning.publish_raw(b"1", 4)

    def test_it_works_with_kombu_as_it_is(self, client: redis.Redis, valkey_url: str) -> None:
        client.set(SHARDS_KEY, 4)
        with Publisher(valkey_url, source="/lms/acme", reuse_redis_client=False) as publisher:
            publisher.upsert_course(course_id="c1")
        assert self.arrived(client) == [1] * 4 + [0] * 4
