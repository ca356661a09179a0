"""The consumer's loop: tenures, takeovers, errors."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest
from sqlalchemy import Engine, select, text
from structlog.typing import EventDict

from db import resharding, shards
from db.models import HandledCommand, QuarantinedMessage, Shard
from events.sharding import Announcement, shard_of
from tests import sample_commands as c
from worker.commands import consumer as module
from worker.commands import resharding as stepping
from worker.commands.batches import Batches
from worker.commands.consumer import Consumer
from worker.commands.handler import Handler
from worker.commands.sources import BrokerAwayError, Message
from worker.policies import Policies

SHARDS = 2
LEASE_S = 0.6
PATIENCE_S = 30.0


@dataclass
class FakeSource:
    """A queue in memory. `failures` are how many of the next takes fail."""

    waiting: list[Message] = field(default_factory=list)
    failures: int = 0
    opened: int = 0
    closed: int = 0
    held_elsewhere: bool = False
    looks: int = 0
    announced: list[Announcement] = field(default_factory=list)

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        if self.failures:
            self.failures -= 1
            raise BrokerAwayError
        if not self.waiting:
            time.sleep(0.01)
        return self.waiting[:limit]

    def announce(self, announcement: Announcement, _told: Announcement | None) -> bool:
        self.announced.append(announcement)
        return True

    def told(self) -> Announcement | None:
        return self.announced[-1] if self.announced else None

    def put_barrier(self, body: bytes) -> bool:
        self.waiting.append(Message(body, None))
        return True

    def put_back(self, messages: Sequence[Message]) -> None:
        pass

    def held(self) -> int:
        return 0

    def is_empty(self) -> bool:
        self.looks += 1
        return not self.waiting and not self.held_elsewhere

    def ack(self, batch: Sequence[Message]) -> None:
        del self.waiting[: len(batch)]

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> "FakeSource":
        self.opened += 1
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.05)


@pytest.fixture
def source(engine: Engine) -> FakeSource:
    with engine.begin() as connection:
        shards.ensure_shards(connection, SHARDS)
    return FakeSource()


def consumer(engine: Engine, source: FakeSource, owner: str = "me") -> Consumer:
    return Consumer(
        0,
        owner,
        engine,
        Batches(engine, Handler(Policies(), True), LEASE_S),
        lambda: source,
        10,
        LEASE_S,
    )


@contextmanager
def running(one: Consumer) -> Iterator[threading.Event]:
    stopping = threading.Event()
    thread = threading.Thread(target=one.run, args=(stopping,))
    thread.start()
    try:
        yield stopping
    finally:
        stopping.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def messages(number: int) -> list[Message]:
    return [Message(c.received(c.exam(str(n))).body, None) for n in range(number)]


def handled(engine: Engine) -> int:
    with engine.begin() as connection:
        return len(connection.execute(select(HandledCommand)).all())


def owner(engine: Engine) -> str | None:
    with engine.begin() as connection:
        return connection.scalar(select(Shard.owner).where(Shard.shard == 0))


def test_it_makes_progress_while_it_is_given_messages_or_finds_none(
    engine: Engine, source: FakeSource
) -> None:
    # Given a queue that gives nothing, because another consumer holds what is in it
    source.held_elsewhere = True
    one = consumer(engine, source)
    with running(one):
        until(lambda: source.looks > 1)
        assert one.progressed.ago_s is None
        # When that one has gone
        source.held_elsewhere = False
        until(lambda: one.progressed.ago_s is not None)


def test_everything_that_waits_is_committed_and_acknowledged(engine: Engine, source: FakeSource) -> None:
    source.waiting = messages(25)
    with running(consumer(engine, source)):
        until(lambda: not source.waiting)
    assert handled(engine) == 25
    assert source.opened == source.closed == 1
    # and a graceful stop gives the shard back
    assert owner(engine) is None


def test_commands_of_other_shards_go_to_quarantine(
    engine: Engine, source: FakeSource, logged: list[EventDict]
) -> None:
    # Given learners of both shards in the queue of the first, twice, and a command of no learner
    learners = {shard_of(user, SHARDS): user for user in "0123456789"}
    about = [c.received(c.learner(learners[0])), c.received(c.learner(learners[1])), c.received(c.exam("A"))]
    source.waiting = [Message(one.body, None) for one in about * 2]
    # When they are consumed, then those of the other shard are in quarantine, each time, and the rest is handled
    with running(consumer(engine, source)):
        until(lambda: not source.waiting)
    assert handled(engine) == 2
    with engine.begin() as connection:
        found = connection.execute(select(QuarantinedMessage)).all()
    assert [(row.code, row.body) for row in found] == [("wrong_shard", about[1].body)] * 2
    assert found[0].detail.startswith("belongs to shard 1 of 2 and came on 0")
    told = [line for line in logged if line["event"] == "a message went to quarantine"]
    assert [(line["code"], line["shard"]) for line in told] == [("wrong_shard", 0)] * 2


def test_publishers_are_told_how_many_shards_there_are(
    engine: Engine, source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepping, "ANNOUNCE_EVERY_S", 0.05)
    # When a shard is served, then it is told at once, and again and again
    with running(consumer(engine, source)):
        until(lambda: len(source.announced) > 2)
    assert set(source.announced) == {Announcement(SHARDS)}


def test_a_consumer_tells_how_many_shards_want_an_owner(engine: Engine, source: FakeSource) -> None:
    # Given a consumer that has begun
    rows: list[int] = []
    with running(replace(consumer(engine, source), on_rows=rows.append)):
        until(lambda: rows == [SHARDS])
        # When the number of shards is to double, then its tenure ends, and it hears of the new ones
        with engine.begin() as connection:
            resharding.lock(connection)
            resharding.begin(connection, SHARDS, 2 * SHARDS, notice_s=60, settle_s=60)
        until(lambda: rows[-1] == 2 * SHARDS)
        until(lambda: source.announced[-1] == Announcement(SHARDS, next=2 * SHARDS, version=1))
        until(lambda: told_at(engine) is not None)
        # When the broker is wiped, then the notice begins anew
        before = told_at(engine)
        source.announced.clear()
        until(lambda: told_at(engine) not in (None, before))


def told_at(engine: Engine) -> datetime | None:
    with engine.begin() as connection:
        told: datetime | None = connection.scalar(text("SELECT told_at FROM reshardings"))
        return told


def test_a_shard_that_is_not_there_is_not_served(engine: Engine, source: FakeSource) -> None:
    one = replace(consumer(engine, source), shard=SHARDS)
    assert one.take_shard() is None


def test_an_idle_owner_keeps_its_shard(engine: Engine, source: FakeSource) -> None:
    with running(consumer(engine, source)):
        until(lambda: owner(engine) == "me")
        other = consumer(engine, FakeSource(), "other")
        started = time.monotonic()
        while time.monotonic() - started < 3 * LEASE_S:
            assert other.take_shard() is None


def test_a_standby_takes_over(engine: Engine, source: FakeSource) -> None:
    # Given an owner that was killed, and a standby
    with engine.begin() as connection:
        assert shards.take(connection, 0, "killed", LEASE_S)
    source.waiting = messages(3)
    # When the lease ends, then the standby goes on
    with running(consumer(engine, source, "standby")):
        until(lambda: not source.waiting)
    assert handled(engine) == 3


def test_a_broker_that_is_away_ends_the_tenure_and_not_the_process(
    engine: Engine, source: FakeSource
) -> None:
    source.failures = 2
    source.waiting = messages(3)
    with running(consumer(engine, source)):
        until(lambda: not source.waiting)
    assert source.opened == source.closed == 3


def test_a_lost_shard_ends_the_tenure(engine: Engine, source: FakeSource) -> None:
    with running(consumer(engine, source)):
        until(lambda: source.opened == 1)
        # When somebody raises the epoch behind its back
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE shards SET epoch = epoch + 1, lease_until = now() WHERE shard = 0")
            )
        # Then it starts over, and takes the shard again when it is free
        until(lambda: source.opened == 2)
        source.waiting = messages(2)
        until(lambda: not source.waiting)
    assert handled(engine) == 2


def test_a_database_that_is_away_ends_the_tenure(engine: Engine, source: FakeSource) -> None:
    with running(consumer(engine, source)):
        until(lambda: source.opened == 1)
        with engine.begin() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
        source.waiting = messages(2)
        until(lambda: not source.waiting)
    assert handled(engine) == 2
