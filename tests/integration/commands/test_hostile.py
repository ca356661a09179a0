"""The corpus through the real brokers and the real database: in quarantine whole, or applied; and on it goes."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from sqlalchemy import Connection, Engine, select

from db import quarantine, shards
from db.models import HandledCommand, InboxEntry, QuarantinedMessage
from db.quarantine import Unreadable
from db.shards import Fence
from events.publisher import Publisher
from events.sharding import queue_name
from tests import hostile
from tests import sample_commands as c
from tests.hostile import CORPUS
from tests.roundtrips import counted
from tests.unit.events import messages
from worker import patches
from worker.commands import decoding
from worker.commands.batches import Batches
from worker.commands.decoding import decode
from worker.commands.handler import Handler
from worker.commands.sources import Message, Source, base, open_source, redis
from worker.commands.sources.redis import Place, open_envelope
from worker.patches import Process
from worker.policies import Policies
from worker.settings import Settings

LIMIT = 10
SHARD = 61
QUEUE = queue_name(SHARD)
LAST = "the last one"
MIB = 1024 * 1024


@pytest.fixture(params=["valkey", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    patches.apply(Process.CONSUME, Settings())
    url: str = request.getfixturevalue(f"{request.param}_url")
    with open_source(url, QUEUE, LIMIT):  # declares the queue on RabbitMQ
        pass
    return url


@pytest.fixture
def fence(engine: Engine) -> Fence:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        fence = shards.take(connection, 0, "me", 600)
    assert fence is not None
    return fence


def consume(source: Source, engine: Engine, fence: Fence, count: int) -> None:
    """What a consumer does, until so many messages are acknowledged."""
    batches = Batches(engine, Handler(Policies(), instructor=True), 600)
    while count > 0:
        taken = source.take(LIMIT, 1)
        if taken:
            batches.commit(fence, [decode(message) for message in taken], source.held())
            source.ack(taken)
            count -= len(taken)


def publish(broker_url: str, corpus: Sequence[hostile.Hostile]) -> None:
    with Publisher(broker_url, source="/tests", shards=SHARD + 1) as publisher:
        for one in corpus:
            publisher.publish_raw(one.body, SHARD, one.content_type, one.headers)


def test_the_corpus_waits_whole_or_is_applied_and_the_next_command_too(
    broker_url: str, engine: Engine, fence: Fence
) -> None:
    # Given the corpus, and a command after it
    last = hostile.Hostile(LAST, None, hostile.event(LAST))
    publish(broker_url, [*CORPUS, last])
    # When all of it is consumed
    with open_source(broker_url, QUEUE, LIMIT) as source:
        consume(source, engine, fence, len(CORPUS) + 1)
        assert source.take(LIMIT, 0.1) == []
    # Then each is where it belongs, to the byte
    with engine.begin() as connection:
        rows = connection.execute(select(QuarantinedMessage.code, QuarantinedMessage.body))
        quarantined = Counter((row.code, len(row.body), bytes(row.body[:200])) for row in rows)
        ids = connection.scalars(select(InboxEntry.command_id).join(HandledCommand)).all()
    # An envelope on Redis that is too large is kept as it came.
    large = [one for one in CORPUS if one.code == "too_large" and len(one.body) > redis.MAX_ENVELOPE_BYTES]
    enveloped = large if broker_url.startswith("redis") else []
    expected = Counter(
        (str(one.code), len(one.body), one.body[:200])
        for one in CORPUS
        if one.code is not None and one not in enveloped
    )
    assert quarantined.total() == expected.total() + len(enveloped)
    assert expected - quarantined == Counter()
    accepted = {json.loads(one.body)["id"] for one in CORPUS if one.code is None}
    assert set(ids) == accepted | {LAST}
    assert not hostile.PROOF.exists()


def test_a_batch_of_nonsense_costs_one_round_trip_more_than_one_of_commands(
    database_url: str, engine: Engine, fence: Fence
) -> None:
    decoded = [decode(Message(one.body, None)) for one in CORPUS]
    nonsense = [one for one in decoded if isinstance(one, Unreadable)]
    commands = [c.received(one) for one in (c.exam("A"), c.learner(), c.create("A"))]
    with counted(database_url, pre_ping=False) as (ours, trips):
        batches = Batches(ours, Handler(Policies(), instructor=True), 600)
        batches.renew(fence)  # connects
        trips()
        batches.commit(fence, commands)
        of_commands = trips()
        # Nothing of a command is written, and the quarantine is, with its bounds
        batches.commit(fence, nonsense)
        assert trips() == of_commands + 1


# --- sizes -----------------------------------------------------------------------------------------------


def test_no_more_bytes_are_taken_at_once_than_allowed_or_one_message(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a limit of three small messages, and a large one between small ones
    for module in ("redis", "rabbitmq"):
        monkeypatch.setattr(f"worker.commands.sources.{module}.MAX_TAKE_BYTES", 3000)
    bodies = [b"a" * 900, b"b" * 900, b"c" * 5000, b"d" * 5000, b"e", b"f"]
    with open_source(broker_url, QUEUE, LIMIT) as source:
        if broker_url.startswith("redis"):
            with Redis.from_url(broker_url) as client:
                client.lpush(QUEUE, *bodies)
        else:
            publish(broker_url, [hostile.Hostile("", None, body) for body in bodies])
        # When they are taken, then the large ones come alone, and all in order
        taken: list[list[bytes]] = []
        while sum(len(batch) for batch in taken) < len(bodies):
            batch = source.take(LIMIT, 1)
            if batch:
                taken.append([message.body for message in batch])
                source.ack(batch)
    assert [body for batch in taken for body in batch] == bodies
    assert [bodies[2]] in taken
    assert [bodies[3]] in taken


def test_an_enormous_message_waits_in_quarantine_and_stops_nobody(
    broker_url: str, engine: Engine, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given one of more than is kept and than is taken with others, and a command after it
    monkeypatch.setattr(decoding, "MAX_KEPT_BYTES", base.MAX_TAKE_BYTES)
    size = base.MAX_TAKE_BYTES + 1000
    last = hostile.Hostile(LAST, None, hostile.event(LAST))
    if broker_url.startswith("redis"):
        with Redis.from_url(broker_url) as client:
            client.lpush(QUEUE, b"x" * size)
    else:
        publish(broker_url, [hostile.Hostile("enormous", None, b"x" * size)])
    publish(broker_url, [last])
    # When they are consumed, then its beginning is kept, and the command is applied
    with open_source(broker_url, QUEUE, LIMIT) as source:
        consume(source, engine, fence, 2)
    with engine.begin() as connection:
        [row] = connection.execute(
            select(QuarantinedMessage.code, QuarantinedMessage.size, QuarantinedMessage.detail)
        )
        assert connection.scalars(select(InboxEntry.command_id)).all() == [LAST]
    assert (row.code, row.size) == ("too_large", decoding.MAX_KEPT_BYTES)
    assert f"of {size} bytes, only the first" in row.detail


def test_the_bound_of_a_take_is_far_below_what_a_statement_may_have() -> None:
    assert 2 * max(base.MAX_TAKE_BYTES, decoding.MAX_KEPT_BYTES) <= 512 * MIB


@pytest.mark.usefixtures("much_memory")
def test_as_much_as_is_kept_can_be_stored(engine: Engine) -> None:
    """PostgreSQL needs half a GiB for it, and so do we."""
    one = decode(Message(b"x" * (decoding.MAX_KEPT_BYTES + 1000), None))
    assert isinstance(one, Unreadable)
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        quarantine.write(connection, 0, [one])
    with engine.begin() as connection:
        assert connection.scalars(select(QuarantinedMessage.size)).all() == [decoding.MAX_KEPT_BYTES]


# --- whatever Hypothesis thinks of can be stored ------------------------------------------------------------

INSERTING = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
any_json = messages.json_values


@INSERTING
@given(
    st.binary(max_size=1000),
    any_json | st.binary(),
    st.dictionaries(st.text(), any_json | st.binary() | st.decimals() | st.datetimes(), max_size=5),
)
def test_whatever_becomes_of_a_message_can_be_stored(
    connection: Connection, body: bytes, content_type: Any, headers: dict[str, Any]
) -> None:
    _store(connection, decode(Message(body, None, content_type, headers)))


@INSERTING
@given(st.dictionaries(st.sampled_from(["body", "properties", "headers", "content-type"]), any_json))
def test_whatever_is_in_an_envelope_can_be_stored(connection: Connection, envelope: dict[str, Any]) -> None:
    _store(connection, decode(open_envelope(Place(QUEUE, messages.encode(envelope)))))


def _store(connection: Connection, one: Any) -> None:
    if isinstance(one, Unreadable):
        with connection.begin_nested() as savepoint:
            shards.ensure_shards(connection, 1)
            quarantine.write(connection, 0, [one])
            savepoint.rollback()
