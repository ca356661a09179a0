"""The quarantine's bounds: the oldest go, they are counted, and nobody waits for it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select, text
from structlog.typing import EventDict

from db import quarantine, shards
from db.ids import new_receipt
from db.models import QuarantinedMessage, Shard
from db.quarantine import Bounds, Unreadable
from events.vocabulary import QuarantineCode
from tests import sample_commands as c
from worker.commands.batches import Batches
from worker.commands.handler import Handler
from worker.policies import Policies

MIB = 1024 * 1024


def message(body: bytes = b"?") -> Unreadable:
    return Unreadable(QuarantineCode.NOT_JSON, "is no JSON", {}, body, new_receipt().at)


def bodies(connection: Connection) -> list[bytes]:
    """Oldest first."""
    return list(connection.scalars(select(QuarantinedMessage.body).order_by(QuarantinedMessage.id)))


def discarded(connection: Connection) -> list[int]:
    """By shard."""
    return list(connection.scalars(select(Shard.quarantine_discarded).order_by(Shard.shard)))


Write = Callable[..., int]


@pytest.fixture
def write(connection: Connection) -> Write:
    """Quarantines messages for the second of two shards."""
    shards.ensure_shards(connection, 2)

    def run(*messages: bytes, bounds: Bounds) -> int:
        return quarantine.write(connection, 1, [message(body) for body in messages], bounds).discarded

    return run


def test_the_oldest_make_room(connection: Connection, write: Write) -> None:
    bounds = Bounds(messages=3)
    assert write(b"1", b"2", b"3", bounds=bounds) == 0
    assert write(b"4", b"5", bounds=bounds) == 2
    assert bodies(connection) == [b"3", b"4", b"5"]
    assert write(b"6", b"7", b"8", b"9", bounds=bounds) == 4
    assert bodies(connection) == [b"7", b"8", b"9"]
    assert discarded(connection) == [0, 6]


def test_bodies_are_bounded_in_sum(connection: Connection, write: Write) -> None:
    bounds = Bounds(megabytes=1)
    half = b"." * (MIB // 2)
    assert write(half, half, bounds=bounds) == 0
    assert write(b"x", bounds=bounds) == 1
    assert bodies(connection) == [half, b"x"]


def test_the_newest_stays_even_when_it_is_bigger_than_the_bound(connection: Connection, write: Write) -> None:
    bounds = Bounds(megabytes=1)
    assert write(b"1", b"2", b"." * (MIB + 1), bounds=bounds) == 2
    assert [len(body) for body in bodies(connection)] == [MIB + 1]
    assert write(b"3", bounds=bounds) == 1
    assert bodies(connection) == [b"3"]


def test_it_shrinks_to_lower_bounds_a_part_at_a_time(
    connection: Connection, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a quarantine that is far beyond its new bounds
    write(*[str(number).encode() for number in range(9)], bounds=Bounds())
    monkeypatch.setattr(quarantine, "TRIMMED_ROWS", 4)
    # When messages come, then no batch discards more than it may
    assert write(b"a", bounds=Bounds(messages=2)) == 4
    assert write(b"b", bounds=Bounds(messages=2)) == 4
    assert write(b"c", bounds=Bounds(messages=2)) == 2
    assert bodies(connection) == [b"b", b"c"]


def test_a_message_that_is_being_replayed_is_not_waited_for(engine: Engine) -> None:
    # Given a person who replays the oldest of two messages
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        quarantine.write(connection, 0, [message(b"1"), message(b"2")])
        oldest = connection.scalar(select(QuarantinedMessage.id).order_by(QuarantinedMessage.id).limit(1))
        assert oldest is not None
    with engine.begin() as person:
        assert quarantine.lock_message(person, oldest) is not None
        # When a batch wants room, then it takes what is free, at once
        with engine.begin() as batch:
            batch.execute(text("SET LOCAL lock_timeout = '1ms'"))
            assert quarantine.write(batch, 0, [message(b"3")], Bounds(messages=1)).discarded == 1
    # And the next one takes the other
    with engine.begin() as batch:
        assert bodies(batch) == [b"1", b"3"]
        assert quarantine.write(batch, 0, [message(b"4")], Bounds(messages=1)).discarded == 2


def test_two_shards_make_room_at_the_same_time(engine: Engine) -> None:
    # Given two shards, and a full quarantine
    bounds = Bounds(messages=4)
    with engine.begin() as connection:
        shards.ensure_shards(connection, 2)
        quarantine.write(connection, 0, [message(b"old")] * 4)
    # When both quarantine messages, neither having committed
    with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            connection.execute(text("SET lock_timeout = '1ms'"))
        assert quarantine.write(one, 0, [message(b"1")] * 2, bounds).discarded == 2
        # those that the second would take are the first's already
        assert quarantine.write(two, 1, [message(b"2")] * 2, bounds).discarded == 0
        two.commit()
        one.commit()
    # Then neither waits, and the next batch evens it out
    with engine.begin() as connection:
        assert len(bodies(connection)) == 6
        assert quarantine.write(connection, 1, [message(b"3")], bounds).discarded == 3
        assert discarded(connection) == [2, 3]


# --- what it costs ---------------------------------------------------------------------------------------


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """Those on the quarantine, as they are executed."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "quarantine" in statement:
            seen.append(statement.split()[0])

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_a_batch_costs_one_statement_more_and_only_when_it_quarantines(
    engine: Engine, logged: list[EventDict]
) -> None:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        fence = shards.take(connection, 0, "me", 60)
    assert fence is not None
    batches = Batches(engine, Handler(Policies(), True, Bounds(messages=2)), 60)
    with statements(engine) as seen:
        batches.commit(fence, [c.received(c.exam("A"))])
    assert seen == []
    with statements(engine) as seen:
        batches.commit(fence, [c.received(c.exam("B")), message(), message()])
    assert seen == ["INSERT", "WITH"]
    assert "full" not in str(logged)
    # And when the quarantine is full, one line says how many messages it has lost
    logged.clear()
    batches.commit(fence, [message(b"ada@example.org")] * 2)
    *_, last = logged
    assert (last["event"], last["discarded"], last["shard"]) == ("the quarantine is full", 2, 0)
    assert len(logged) == 3
    assert "ada@" not in str(logged)


def test_making_room_reads_no_bodies(engine: Engine) -> None:
    # Given many big messages, that PostgreSQL keeps out of line
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        quarantine.write(connection, 0, [message(os.urandom(100_000)) for _ in range(100)])
    before = blocks_of_bodies(engine)
    # When one of them makes room
    with engine.begin() as connection:
        assert quarantine.write(connection, 0, [message()], Bounds(messages=100)).discarded == 1
    # Then no more is read than what is deleted
    assert blocks_of_bodies(engine) - before < before / 50


def blocks_of_bodies(engine: Engine) -> int:
    """How many blocks of bodies, and of the index on them, were asked for until now."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
    with engine.begin() as connection:
        return int(
            connection.execute(
                text(
                    "SELECT toast_blks_hit + toast_blks_read + tidx_blks_hit + tidx_blks_read"
                    " FROM pg_statio_user_tables WHERE relname = 'quarantine'"
                )
            ).scalar_one()
        )
