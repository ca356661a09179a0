"""What an event costs, piece by piece: written in a batch, numbered, read, written as JSON, published, passed.

`python -m benchmarks.listener` prints the CPU microseconds of an event in each piece, of this process and of
PostgreSQL's backend, for each broker. Everything runs in one thread. Two databases get the same commands, and only
the second one has a subscriber: *written* is the difference between their batches.
"""

import gc
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import structlog
from pydantic import SecretStr
from sqlalchemy import Engine

from benchmarks import engines, ours
from benchmarks.engines import Broker
from benchmarks.preload import body_of
from benchmarks.workload import FIRST_WAVE, SECOND_WAVE, steps
from db import event_log, prepared, shards, subscribers
from events.envelope import CONTENT_TYPE
from worker.commands.batches import Batches
from worker.commands.decoding import decode
from worker.commands.sources.base import Message
from worker.cycles import CYCLES_AFTER
from worker.feeds.brokers import open_target
from worker.feeds.cloudevents import CloudEventsFormat
from worker.feeds.publisher import FeedPublisher
from worker.settings import Settings
from worker.subscribers import Feed
from worker.wiring import database_engine, handler

LEARNERS, BATCH, BATCHES_A_ROUND = 200, 20, 2
LEASE_S = 600
NAME, FEED = "feed.listener", Feed(name="benchmark.events")


class Costs:
    """CPU by piece: nanoseconds of this thread and of a backend."""

    def __init__(self) -> None:
        self.python, self.backend = Counter[str](), Counter[str]()

    @contextmanager
    def of(self, piece: str, pid: int | None = None) -> Iterator[None]:
        """Measure what is done meanwhile.

        Parameters:
            pid: of the backend that works for it.
        """
        backend, python = _backend_ns(pid), time.thread_time_ns()
        yield
        self.python[piece] += time.thread_time_ns() - python
        self.backend[piece] += _backend_ns(pid) - backend


def _backend_ns(pid: int | None) -> int:
    return 0 if pid is None else int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def _engine(settings: Settings, name: str, *, autocommit: bool = False) -> tuple[Engine, int]:
    """Return an engine as the relay's, and the pid of the backend of its one connection."""
    engine = database_engine(
        settings, name, session_settings=prepared.SESSION_SETTINGS, pre_ping=False, autocommit=autocommit
    )
    with engine.connect() as connection:
        return engine, connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()


class Writer:
    """Commits batches to a database.

    Parameters:
        piece: the name of what that costs.
        settings: with the database.
    """

    def __init__(self, piece: str, settings: Settings) -> None:
        self.piece = piece
        engine, self._pid = _engine(settings, piece)
        with engine.begin() as connection:
            shards.ensure_shards(connection, 1)
            fence = shards.take(connection, 0, "benchmark", LEASE_S)
        assert fence is not None
        self._fence, self._batches = fence, Batches(engine, handler(settings), LEASE_S)

    def commit(self, bodies: list[bytes], costs: Costs) -> None:
        """Commit one batch."""
        with costs.of(self.piece, self._pid):
            self._batches.commit(self._fence, [decode(Message(one, None, CONTENT_TYPE)) for one in bodies])


class Listener:
    """Numbers and publishes, as the relay does. The feed is its own."""

    def __init__(self, settings: Settings, broker: Broker) -> None:
        self._numbering, self._numberer = _engine(settings, "events")
        engine, self._backend = _engine(settings, NAME, autocommit=True)
        self._target = open_target(broker.url, FEED)
        self._publisher = FeedPublisher(
            name=NAME,
            format=CloudEventsFormat(FEED, "/invigilator/benchmark"),
            owner="benchmark",
            engine=engine,
            open_target=lambda: self._target,
            lease_s=LEASE_S,
        )
        with engine.begin() as connection:
            subscribers.store(connection, {NAME: {}})
            taken = subscribers.take(connection, NAME, "benchmark", LEASE_S)
        assert taken is not None
        self._tenure, self._cursor = taken

    def round(self, costs: Costs) -> int:
        """Number what is committed, and publish it. Return how many events it was."""
        with costs.of("numbered", self._numberer), self._numbering.begin() as connection:
            number = event_log.number(connection)
        with costs.of("read", self._backend):
            events = self._publisher.read(self._tenure, self._cursor)
        with costs.of("as JSON"):
            written = self._publisher.format.write(events)
        with costs.of("published"):
            self._publisher.publish(self._target, written, self._tenure)
        with costs.of("passed", self._backend):
            self._cursor = self._publisher.move(self._tenure, self._cursor, events[-1].position, written)
        return number


def _measure(up: engines.Engines, broker: Broker) -> None:
    broker.reset()
    with ExitStack() as stack:
        silent, told = (
            _settings(stack.enter_context(up.database.fresh(ours.TEMPLATE, ours.prepare)), broker)
            for _ in range(2)
        )
        listener = Listener(told, broker)
        writers = [Writer("batch without", silent), Writer("batch with", told)]
        todo = [body_of(step) for step in steps(range(LEARNERS), FIRST_WAVE + SECOND_WAVE)]
        gc.freeze()
        gc.set_threshold(CYCLES_AFTER)
        costs, events = Costs(), 0
        for number, first in enumerate(range(0, len(todo), BATCH), 1):
            for writer in writers[:: 1 if number % 2 else -1]:
                writer.commit(todo[first : first + BATCH], costs)
            if number % BATCHES_A_ROUND == 0:
                events += listener.round(costs)
    _print(broker.name, costs, events)


def _settings(url: str, broker: Broker) -> Settings:
    with closing(engines.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(ours.LEARNERS, (0, LEARNERS))
    return Settings(database_url=SecretStr(url), broker_url=SecretStr(broker.url))


def _print(broker: str, costs: Costs, events: int) -> None:
    _say(f"{broker}: CPU µs of an event, of {events}: Python, PostgreSQL")
    for counter in (costs.python, costs.backend):
        counter["written"] = counter.pop("batch with") - counter.pop("batch without")
    for piece in costs.python:
        _say(
            f"  {piece:10} {costs.python[piece] / events / 1000:6.1f} {costs.backend[piece] / events / 1000:6.1f}"
        )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure with each broker."""
    structlog.configure(processors=[_drop])
    with (
        tempfile.TemporaryDirectory(prefix="invigilator-listener-") as folder,
        engines.running(Path(folder), _say) as up,
    ):
        for broker in up.brokers.values():
            _measure(up, broker)


def _drop(*_: object) -> structlog.typing.EventDict:
    raise structlog.DropEvent


if __name__ == "__main__":
    main()
