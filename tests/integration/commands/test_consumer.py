"""The consumer's loop: tenures, takeovers, errors."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Engine, select, text

from db import shards
from db.models import HandledCommand, Shard
from events.sharding import shard_of
from tests import commands as c
from worker.commands import consumer as module
from worker.commands.batches import Batches
from worker.commands.consumer import Consumer
from worker.commands.handler import Handler
from worker.commands.sources import BrokerAwayError, Message
from worker.policies import Policies

LEASE_S = 0.6
PATIENCE_S = 30.0


@dataclass
class FakeSource:
    """A queue in memory. `failures` are how many of the next takes fail."""

    waiting: list[Message] = field(default_factory=list)
    failures: int = 0
    opened: int = 0
    closed: int = 0

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        if self.failures:
            self.failures -= 1
            raise BrokerAwayError
        if not self.waiting:
            time.sleep(0.01)
        return self.waiting[:limit]

    def held(self) -> int:
        return 0

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
        shards.ensure_shards(connection, 1)
    return FakeSource()


def consumer(engine: Engine, source: FakeSource, owner: str = "me") -> Consumer:
    return Consumer(
        0, 2, owner, engine, Batches(engine, Handler(Policies(), True), LEASE_S), lambda: source, 10, LEASE_S
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
        return connection.scalar(select(Shard.owner))


def test_everything_that_waits_is_committed_and_acknowledged(engine: Engine, source: FakeSource) -> None:
    source.waiting = messages(25)
    with running(consumer(engine, source)):
        until(lambda: not source.waiting)
    assert handled(engine) == 25
    assert source.opened == source.closed == 1
    # and a graceful stop gives the shard back
    assert owner(engine) is None


def test_commands_of_other_shards_are_applied_and_warned_of(
    engine: Engine, source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    # Given learners of both shards in the queue of the first
    learners = {shard_of(user, 2): user for user in "0123456789"}
    source.waiting = [Message(c.received(c.learner(user)).body, None) for user in learners.values()]
    # When they are consumed, then nothing is lost, and somebody is told
    with running(consumer(engine, source)):
        until(lambda: not source.waiting)
    assert handled(engine) == 2
    assert "shard 0: 1 commands belong to other shards" in caplog.text


def test_an_idle_owner_keeps_its_shard(engine: Engine, source: FakeSource) -> None:
    with running(consumer(engine, source)):
        until(lambda: owner(engine) == "me")
        other = consumer(engine, FakeSource(), "other")
        started = time.monotonic()
        while time.monotonic() - started < 3 * LEASE_S:
            assert other._take_shard() is None


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
            connection.execute(text("UPDATE shards SET epoch = epoch + 1, lease_until = now()"))
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
