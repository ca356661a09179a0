"""The number of shards changes while commands flow, on real brokers. Each learner's commands keep their order."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Engine, text

from db import resharding, shards
from db.connect import make_engine
from events import shard_count
from events.sharding import queue_name
from tests.flowing import outcomes, quarantined, traffic
from tests.integration.commands.test_consumer import until
from worker.commands import consumer as consuming
from worker.commands import resharding as stepping
from worker.commands.batches import Batches
from worker.commands.consumer import Consumer
from worker.commands.handler import Handler
from worker.commands.sources import BrokerAwayError, Message, Source, open_source
from worker.policies import Policies
from worker.processes import session_settings
from worker.settings import Settings

LEASE_S = 1.0
BATCH = 20
MOST = 8
ASK_EVERY_S = 0.3
NOTICE_S = 0.5
SETTLE_S = 0.4


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_count, "ASK_EVERY_S", ASK_EVERY_S)
    monkeypatch.setattr(consuming, "PAUSE_S", 0.05)
    monkeypatch.setattr(consuming, "STEP_EVERY_S", 0.02)
    monkeypatch.setattr(stepping, "STEP_EVERY_S", 0.02)


@dataclass
class Dying:
    """A source whose reader dies now and then, after a commit or before one, and leaves everything as it is."""

    source: Source
    chance: random.Random

    def _die(self) -> None:
        if self.chance.random() < 0.02:
            raise BrokerAwayError("died")

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        taken = self.source.take(limit, wait_s)
        self._die()
        return taken

    def ack(self, batch: Sequence[Message]) -> None:
        self._die()
        self.source.ack(batch)

    def put_barrier(self, body: bytes) -> bool:
        is_put = self.source.put_barrier(body)
        self._die()
        return is_put

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def __enter__(self) -> "Dying":
        return self

    def __exit__(self, *exception: object) -> None:
        self.source.close()


@dataclass
class Shards:
    """Consumers of two processes, in threads: one for each shard that there may be."""

    url: str
    database_url: str
    stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self.serve, args=(shard, owner))
            for shard in range(MOST)
            for owner in "ab"
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join()

    def serve(self, shard: int, owner: str) -> None:
        engine = make_engine(
            self.database_url,
            application_name="tests",
            session_settings=session_settings(Settings()),
            pre_ping=False,
        )
        chance = random.Random(f"{shard} {owner}")
        consumer = Consumer(
            shard=shard,
            owner=owner,
            engine=engine,
            batches=Batches(engine, Handler(Policies(), instructor=True), LEASE_S),
            open_source=lambda: Dying(open_source(self.url, queue_name(shard), BATCH), chance),  # type: ignore[arg-type,return-value]
            batch_size=BATCH,
            lease_s=LEASE_S,
        )
        try:
            consumer.run(self.stopping)
        finally:
            engine.dispose()


def change(engine: Engine, before: int, after: int) -> None:
    with engine.begin() as connection:
        resharding.lock(connection)
        resharding.begin(connection, before, after, notice_s=NOTICE_S, settle_s=SETTLE_S)


def is_finished(engine: Engine, number: int) -> Callable[[], bool]:
    def ask() -> bool:
        with engine.begin() as connection:
            return resharding.read(connection) == resharding.Sharding(
                number, last=resharding.read(connection).last
            )

    return ask


@pytest.mark.no_cover  # chance decides what it reaches; `test_parts` reaches all of it
@pytest.mark.parametrize("broker", ["valkey", "rabbitmq"])
def test_each_learners_commands_keep_their_order(
    broker: str, request: pytest.FixtureRequest, engine: Engine, database_url: str
) -> None:
    url = request.getfixturevalue(f"{broker}_url")
    with engine.begin() as connection:
        shards.ensure_shards(connection, 4)
    with ExitStack() as stack:
        # Given a system with four shards, whose consumers die now and then, and publishers that go on publishing
        stack.enter_context(Shards(url, database_url).running())
        until(lambda: served(engine, 4))
        flow = stack.enter_context(traffic(url, 4, timeout_s=30))
        with flow.flowing():
            # When the number of shards changes, and changes back
            for before, after in ((4, 8), (8, 4)):
                change(engine, before, after)
                until(is_finished(engine, after))
        # Then every command is handled, once and in its order: any other order would have rejected some
        until(lambda: sum(outcomes(engine).values()) >= flow.published)
    assert outcomes(engine) == {"applied": flow.published}
    assert quarantined(engine) == []
    assert {publisher.shards for publisher in flow.publishers} == {4}


def served(engine: Engine, number: int) -> bool:
    with engine.begin() as connection:
        owned = connection.execute(text("SELECT count(*) FROM shards WHERE owner IS NOT NULL"))
        return bool(owned.scalar_one() == number)
