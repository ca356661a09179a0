"""`invigilator status`, `publish` and the processes, against real engines."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kombu
import pytest
import redis
from sqlalchemy import insert

from db import shards, totals
from db.models import InboxEntry
from events.publisher import Publisher
from events.sharding import SHARDS_KEY, Announcement, queue_name
from tests import sample_commands as c
from tests.commandline import CommandLine
from tests.integration.cli.conftest import Record
from tests.integration.commands.test_consumer import running, until
from worker.commands.batches import Batches
from worker.commands.consumer import Consumer
from worker.commands.handler import Handler
from worker.commands.sources import BrokerAwayError, open_source
from worker.commands.sources.base import Orphan
from worker.commands.sources.brokers import orphans, queued
from worker.commands.sources.rabbitmq import RabbitSource
from worker.commands.sources.rabbitmq_queues import GAP
from worker.errors import ConfigurationError
from worker.policies import Policies

EVENT = (
    b'{"type": "exam.upsert.v1", "data": {"exam_id": 1, "course_id": 1, "content_id": 1, "exam_name": "x"}}\n'
)
PATIENCE_S = 60


def test_the_status_of_nothing(cli: CommandLine, record: Record, with_valkey: str) -> None:
    ran = cli("status", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert ran.json == {
        "verdict": "Everything works, and nothing needs anybody.",
        "commands": {"queued": 0, "quarantined": 0},
        "quarantine_discarded": 0,
        "effects": {
            "pending": 0,
            "running": 0,
            "done": 0,
            "failed": 0,
            "superseded": 0,
            "cancelled": 0,
        },
        "oldest_pending_s": None,
        "circuits": {},
        "circuit_details": {},
        "pauses": [],
        "shards": [{"shard": 0, "owner": None, "queued": 0, "stalled_s": 0}],
        "resharding": None,
        "processes": [],
        "orphan_queues": [],
        "feeds": {},
        "webhooks": {},
    }


def test_the_status(cli: CommandLine, record: Record, with_valkey: str) -> None:
    # Given two commands in two shards, one of another priority, one message in quarantine, and effects
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, 2)
    with redis.Redis.from_url(with_valkey) as client:
        client.lpush(queue_name(0), b"a")
        client.lpush(queue_name(1) + "\x06\x169", b"b")
    record.quarantine(b"?")
    record.handle(
        c.received(c.create("A")),
        c.received(c.update("A", "submitted")),
        c.received(c.update("A", "verified")),
    )
    first, _ = record.effect_ids()
    record.set_state(first, "failed")
    with record.engine.connect() as connection:
        totals.recount(connection)
    record.execute("UPDATE shards SET quarantine_discarded = 3 + shard")
    # When the status is asked for
    ran = cli("status", "--json")
    # Then everything is counted
    assert ran.json["commands"] == {"queued": 2, "quarantined": 1}
    assert repr(ran.json["quarantine_discarded"]) == "7"
    assert ran.json["effects"]["pending"] == 1
    assert ran.json["effects"]["failed"] == 1
    assert ran.json["oldest_pending_s"] >= 0
    # And a person can read it
    assert "queued: 2" in cli("status").out


def test_queues_of_redis_that_no_shard_reads(cli: CommandLine, record: Record, with_valkey: str) -> None:
    # Given two shards, and lists that a publisher with another number, or a mistake, has filled
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, 2)
    with redis.Redis.from_url(with_valkey) as client:
        client.lpush(queue_name(1), b"read")
        client.lpush(queue_name(2), b"1", b"2")
        client.lpush(queue_name(2) + "\x06\x163", b"3")
        client.lpush("invigilator.commands", b"1")
        client.lpush("invigilator.commands.seven", b"1")
        # And keys that are none
        client.lpush("invigilator.effects.credit", b"1")
        client.set(SHARDS_KEY, 2)
    # Then they are named with their lengths, and what waits there is not counted as queued
    ran = cli("status", "--json")
    assert ran.json["commands"]["queued"] == 1
    assert ran.json["orphan_queues"] == [
        {"queue": "invigilator.commands", "length": 1},
        {"queue": "invigilator.commands.2", "length": 3},
        {"queue": "invigilator.commands.seven", "length": 1},
    ]
    # And a person can read it
    assert "invigilator.commands.seven" in cli("status").out


def test_queues_of_rabbitmq_that_no_shard_reads(rabbitmq_url: str) -> None:
    # Given queues beyond the last shard, with a gap between them, and one without a number; two are empty
    empty, full, unnumbered = queue_name(902), queue_name(902 + GAP), "invigilator.commands"
    with kombu.Connection(rabbitmq_url) as connection:
        channel = connection.default_channel
        for queue in (empty, full, unnumbered):
            channel.queue_declare(queue, durable=True, auto_delete=False)
        with Publisher(rabbitmq_url, source="/tests", shards=1000) as publisher:
            publisher.publish_raw(b"1", 902 + GAP)
        # Then they are named with what waits there
        try:
            found = orphans(rabbitmq_url, 902)
            assert found == [Orphan(unnumbered, 0), Orphan(empty, 0), Orphan(full, 1)]
            # And those that are read are not
            assert orphans(rabbitmq_url, 903 + GAP) == [Orphan(unnumbered, 0)]
            # Nor are those behind a wider gap
            assert orphans(rabbitmq_url, 901 - GAP) == [Orphan(unnumbered, 0)]
        finally:
            for queue in (empty, full, unnumbered):
                channel.queue_delete(queue)


def test_a_queue_of_rabbitmq_that_is_somebody_elses(rabbitmq_url: str) -> None:
    with kombu.Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_declare(queue_name(950), exclusive=True)
        with pytest.raises(BrokerAwayError, match="ResourceLocked"):
            orphans(rabbitmq_url, 950)


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_orphans_of_a_broker_that_is_away(scheme: str) -> None:
    with pytest.raises(BrokerAwayError):
        orphans(f"{scheme}://127.0.0.1:1", 1)


def test_a_broker_that_is_away(cli: CommandLine, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme in ("redis", "amqp"):
        monkeypatch.setenv("INVIGILATOR_BROKER_URL", f"{scheme}://me:secret@127.0.0.1:1")
        ran = cli("status")
        assert (ran.status, ran.out) == (1, "")
        assert ran.err.startswith("invigilator: the broker is away (")
        assert ran.err.count("\n") == 1
        assert "secret" not in ran.err


@pytest.mark.parametrize("url", ["redis://:sec/ret@127.0.0.1:x", "amqp://me:sec/ret@127.0.0.1:x"])
def test_a_broker_url_that_cannot_be_read(url: str) -> None:
    with pytest.raises((ConfigurationError, BrokerAwayError)) as caught:
        queued(url, 1)
    assert "sec" not in str(caught.value)


def test_what_waits_in_rabbitmq(rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> None:
    # Given a queue with two commands, another one that does not exist
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", rabbitmq_url)
    with open_source(rabbitmq_url, queue_name(0), 1) as source:
        source.announce(Announcement(1), None)
    before = queued(rabbitmq_url, 2)
    ran = cli("publish", "-", "--json", stdin=EVENT * 2)
    assert ran.json == {"published": 2}
    # Then they are counted
    deadline = time.monotonic() + PATIENCE_S
    while queued(rabbitmq_url, 2) != before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert queued(rabbitmq_url, 2) == before + 2
    # And other tests find the broker as it was
    with kombu.Connection(rabbitmq_url) as connection:
        for queue in (queue_name(0), SHARDS_KEY):
            connection.default_channel.queue_delete(queue)


def test_what_a_consumer_has_in_hand_is_queued(
    rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch, cli: CommandLine, record: Record
) -> None:
    # Given commands that RabbitMQ has handed out: ten to a batch, and ten behind it
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", rabbitmq_url)
    queue = queue_name(7)
    source = open_source(rabbitmq_url, queue, 10)
    assert isinstance(source, RabbitSource)
    received = [c.received(c.exam(str(number))) for number in range(20)]
    with Publisher(rabbitmq_url, source="/tests", shards=8) as publisher:
        for one in received:
            publisher.publish_raw(one.body, 7)
    while source.held() < 20:
        source.drain(PATIENCE_S)
    with record.engine.begin() as connection:
        shards.ensure_shards(connection, 8)
    before = queued_status(cli)
    consumer = Consumer(
        7,
        "me",
        record.engine,
        Batches(record.engine, Handler(Policies(), True), 60),
        lambda: source,
        10,
        60,
    )
    # When their batch waits for another one, which is writing the same command
    with record.engine.connect() as holder:
        holder.execute(
            insert(InboxEntry).values(
                source="/tests", command_id=received[0].command.id, type="", fingerprint=b"." * 32
            )
        )
        with running(consumer):
            until(lambda: queued_status(cli) == before + 20)
            assert queued(rabbitmq_url, 8) == before
            # Then all of them are queued, until they are written
            holder.rollback()
            until(lambda: queued_status(cli) == before)
    assert len(cli("commands", "list", "--json").lines) == 24
    with kombu.Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_delete(queue)


def queued_status(cli: CommandLine) -> int:
    return int(cli("status", "--json").json["commands"]["queued"])


def test_published_commands_are_consumed_by_a_process(
    cli: CommandLine, record: Record, with_valkey: str, database_url: str, tmp_path: Path
) -> None:
    # Given commands that were published
    assert cli("publish", "-", "--json", stdin=EVENT * 2).json == {"published": 2}
    assert cli("status", "--json").json["commands"]["queued"] == 2
    # When a consumer runs
    process = subprocess.Popen(
        [sys.executable, "-c", "from invigilator.cli.main import main; main()", "consume", "--shard", "0"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + PATIENCE_S
    while cli("status", "--json").json["commands"]["queued"] and time.monotonic() < deadline:
        time.sleep(0.1)
    # Then they are handled, and it ends when asked to, having logged objects
    assert [row["outcome"] for row in cli("commands", "list", "--json").lines][:2] == ["applied"] * 2
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    taken, *_ = map(json.loads, log.splitlines())
    assert taken.pop("timestamp").endswith("Z")
    assert taken == {
        "event": "shard taken",
        "level": "info",
        "logger": "worker.commands.consumer",
        "shard": 0,
        "epoch": 1,
    }


def test_a_shard_that_does_not_exist(cli: CommandLine, record: Record, with_valkey: str) -> None:
    ran = cli("consume", "--shard", "7")
    assert ran.status == 1
    assert ran.err == "invigilator: there is no shard 7; shards are 0 to 0\n"
