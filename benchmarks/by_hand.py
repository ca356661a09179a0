"""The floor's latencies: of a commit, and of the effects that follow from it, with one command at a time."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bench import Bench
from benchmarks.engines import Broker, connect
from benchmarks.floor import queues
from benchmarks.flushes import Flushes
from benchmarks.rivals import FLOOR, PATIENCE_S, WARM_LEARNERS, database, driving, floor_command
from benchmarks.running import READY_TIMEOUT_S, Process, plain_environment, wait_until
from benchmarks.workload import COMMANDS_PER_LEARNER
from invigilator.local.guard import Guard

POLL_S = 0.1
WORKERS = 3
"""A command owes two effects at once. The third worker is there for what follows from a cascade."""
BODY = json.dumps({"of": "the size of a command", "body": 500 * "x"})

_LAST = "SELECT coalesce(max(id), 0) FROM inbox"
_OWED = "SELECT FROM effects WHERE state <> 'done' LIMIT 1"
_DONE = """
SELECT extract(epoch FROM max(pg_xact_commit_timestamp(effects.xmin)))::float8
FROM inbox LEFT JOIN effects USING (source, command_id)
WHERE inbox.id > %s
GROUP BY inbox.id
ORDER BY inbox.id
"""


@dataclass(frozen=True, slots=True)
class Handled:
    """Unix times of a message: around the call that sent it, and of its commit."""

    before: float
    after: float
    committed: float


@dataclass(slots=True)
class _Consumer:
    """The floor's driver as a consumer, and who sends to it."""

    url: str
    process: Process
    queue: queues.Handmade
    pause_s: tuple[float, float]
    learners: int = field(default=0, init=False)

    def handle(self, learners: int) -> list[Handled]:
        """Send the commands of more learners, with a random pause before each of them."""
        self.process.tell({"first": self.learners, "learners": learners})
        self.learners += learners
        sent = []
        for _ in range(learners * COMMANDS_PER_LEARNER):
            time.sleep(random.uniform(*self.pause_s))  # noqa: S311 - no secret
            before = time.time()
            self.queue.send(BODY)
            sent.append((before, time.time()))
        committed = self.process.answer(PATIENCE_S)["committed_at"]
        return [Handled(*times, at) for times, at in zip(sent, committed, strict=True)]


def commits(bench: Bench, broker: Broker, learners: int, pause_s: tuple[float, float]) -> list[Handled]:
    """Measure commits. Nobody carries out the effects."""
    with _consumer(bench, broker, pause_s) as consumer:
        consumer.handle(WARM_LEARNERS)
        return consumer.handle(learners)


def effects(bench: Bench, broker: Broker, learners: int, pause_s: tuple[float, float]) -> list[float]:
    """Measure effects, which a relay and workers by hand carry out.

    Returns:
        for each command that owes effects, the seconds from the call that sent it to the commit of the last one. As
        for ours, a commit counts from PostgreSQL's time stamp, and the mean time of a flush is added.
    """
    with (
        _consumer(bench, broker, pause_s) as consumer,
        _parts(bench, consumer.url, broker) as parts,
        closing(connect(consumer.url)) as connection,
        connection.cursor() as cursor,
    ):

        def rows(query: str, *values: object) -> list[Any]:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

        def handle(learners: int) -> list[Handled]:
            handled = consumer.handle(learners)
            wait_until(lambda: not rows(_OWED), parts, "the effects by hand", PATIENCE_S, POLL_S)
            return handled

        handle(WARM_LEARNERS)
        [last] = rows(_LAST)
        flushes = Flushes(rows)
        handled = handle(learners)
        flush_s = flushes.mean_s()
        done = rows(_DONE, *last)
    pairs = zip(handled, done, strict=True)
    return [at + flush_s - one.before for one, (at,) in pairs if at is not None]


@contextmanager
def _consumer(bench: Bench, broker: Broker, pause_s: tuple[float, float]) -> Iterator[_Consumer]:
    broker.reset()
    command = floor_command("prepared", 1)
    with (
        database(bench, FLOOR, command) as url,
        driving(bench, FLOOR, [*command, *_engines(url, broker)]) as process,
    ):
        yield _Consumer(url, process, queues.connect(broker.url), pause_s)


@contextmanager
def _parts(bench: Bench, url: str, broker: Broker) -> Iterator[Sequence[Process]]:
    parts = []
    with Guard() as guard, ExitStack() as stack:
        for part in ["relay", *["worker"] * WORKERS]:
            command = ["python", "-m", "benchmarks.floor.effects", part, *_engines(url, broker)]
            log = bench.folder / f"{FLOOR}-{part}.log"
            process = Process(part, command, plain_environment(), log, guard, talks=True)
            stack.callback(process.kill)
            process.answer(READY_TIMEOUT_S)
            parts.append(process)
        yield parts


def _engines(database_url: str, broker: Broker) -> list[str]:
    return ["--database-url", database_url, "--broker-url", broker.url]
