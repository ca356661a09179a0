"""Our system as a contestant: runs the Procfile's processes and measures them from outside."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.engines import Broker, Database, connect
from benchmarks.meter import Meter
from benchmarks.running import BenchmarkError, Process, driver, plain_environment
from benchmarks.workload import DECLINED, EXAMS, TRANSITIONS_PER_LEARNER, VERIFIED
from db.migrate import upgrade
from invigilator.local.guard import Guard
from invigilator.local.procfile import read_procfile

POLL_S = 0.02
PATIENCE_S = 600
WARM_LEARNERS = 20
TEMPLATE = "ours"

_SEED = """
INSERT INTO courses (course_id, name) VALUES ('{verified}', 'The verified one'), ('{declined}', 'The declined one');
INSERT INTO exams (exam_id, course_id, content_id, exam_name, is_proctored, is_practice_exam, is_active)
VALUES {exams}
"""
_LEARNERS = """
INSERT INTO learners (user_id, username, email, full_name)
SELECT n, 'learner' || n, 'learner' || n || '@example.org', 'Learner ' || n
FROM generate_series(%s, %s - 1) AS n
"""
# Cleans a database that is used again: releases the shards of killed owners and deletes unfinished effects.
_TIDY = """
UPDATE shards SET owner = NULL, lease_until = NULL;
DELETE FROM effects WHERE state IN ('pending', 'running', 'superseded')
"""
_TRANSITIONS = """
SELECT count(*) FROM transitions JOIN attempts ON attempts.id = attempt_id WHERE user_id = ANY(%s)
"""
_LISTENING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'LISTEN invigilator_effects%'
"""
_UNFINISHED = """
SELECT state, count(*) FROM effects
WHERE state IN ('pending', 'running', 'failed', 'superseded', 'cancelled') GROUP BY 1
"""
_SERVED = "SELECT count(*) FROM subscribers WHERE owner IS NOT NULL"
_UNTOLD = """
SELECT count(*) FROM (
    SELECT FROM events, subscribers
    WHERE events.position IS NULL OR events.position > subscribers.position
    LIMIT 1
) AS untold
"""
_OWED = "SELECT count(*) FROM (SELECT FROM effects WHERE state IN ('pending', 'running') LIMIT 1) AS owed"


def prepare(url: str) -> None:
    """Create the schema, the courses and the exams."""
    upgrade(url)
    exams = ", ".join(
        f"('{exam}', '{course}', 'block-{exam}', 'Exam {exam}', true, false, true)"
        for course, names in EXAMS.items()
        for exam in names
    )
    connection = connect(url)
    with connection.cursor() as cursor:
        cursor.execute(_SEED.format(verified=VERIFIED, declined=DECLINED, exams=exams))
    connection.close()


class Ours:
    """Our system. Leaving the `with` block ends its processes.

    Parameters:
        database: the database server.
        url: the URL of a prepared database of that server.
        broker: the broker.
        folder: receives the logs of the processes.
        settings: the settings, without the prefix.
        tidies: whether unfinished effects of an earlier measurement are deleted.
    """

    def __init__(
        self,
        database: Database,
        url: str,
        broker: Broker,
        folder: Path,
        settings: Mapping[str, object],
        *,
        tidies: bool = True,
    ) -> None:
        self._database = database
        self._url = url
        self._broker = broker
        self._folder = folder
        self._settings = settings
        self._tidies = tidies
        self.shards = int(str(settings.get("COMMAND_SHARDS", 1)))
        self.learners = range(0)
        self._resources = ExitStack()
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        with self._resources as resources:
            self._guard = resources.enter_context(Guard())
            self._connection = connect(self._url)
            resources.callback(self._connection.close)
            self._cursor = self._connection.cursor()
            if self._tidies:
                self._cursor.execute(_TIDY)
            # Our own backend is not measured. Parallel workers of its queries would be, so there are none.
            self._cursor.execute("SET max_parallel_workers_per_gather = 0")
            resources.callback(self._end)
            self._broker.reset(self.shards)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _end(self) -> None:
        # Everything is measured by now and nothing is kept, so SIGKILL is good enough.
        for process in self.processes:
            process.kill()

    # --- processes -----------------------------------------------------------------------------------------

    def start(self, name: str, number: int = 1) -> None:
        """Start `number` processes of a line of the Procfile or of a small site.

        Several `commands` processes divide the shards.
        """
        command = {**read_procfile(), **SMALL_SITE}[name]
        for index in range(number):
            if name == "commands" and self.shards > 1:
                mine = range(self.shards)[index::number]
                self._launch(name, command + "".join(f" --shard {shard}" for shard in mine))
            else:
                self._launch(name, command.replace(f"{name}@%h", f"{name}{index}@%h"))

    def _launch(self, name: str, command: str) -> None:
        prefixed = {f"INVIGILATOR_{key}": str(value) for key, value in self._settings.items()}
        environment = {
            **plain_environment(),
            "INVIGILATOR_DATABASE_URL": self._url,
            "INVIGILATOR_BROKER_URL": self._broker.url,
            **prefixed,
        }
        log = self._folder / f"{name}-{len(self.processes)}-{time.time_ns()}.log"
        self.processes.append(Process(name, command, environment, log, self._guard))

    @contextmanager
    def publisher(self) -> Iterator[Process]:
        """Run the LMS's publisher (`benchmarks.publish`) as a driver."""
        command = ["python", "-m", "benchmarks.publish", "--broker-url", self._broker.url]
        with driver("publisher", [*command, "--shards", str(self.shards)], self._folder, self._guard) as (
            process,
            _,
        ):
            self.processes.append(process)
            yield process
            self.processes.remove(process)

    def wait_until_ready(self) -> None:
        """Wait until the relay listens, every shard has an owner, and the Celery workers are ready."""
        names = [process.name for process in self.processes]
        relays = names.count("relay") + names.count("work")
        taken = "SELECT count(*) FROM shards WHERE owner IS NOT NULL"
        self.wait_until(lambda: self.number(_LISTENING) >= relays, "the relay to listen")
        if "SUBSCRIPTIONS_FILE" in self._settings:
            self.wait_until(lambda: self.number(_SERVED) > 0, "the feed to be served")
        if not {"commands", "work"}.isdisjoint(names):
            self.wait_until(lambda: self.number(taken) == self.shards, "the shards to be taken")
        for process in self.processes:
            if process.name in WORKERS:
                self.wait_until(partial(_is_ready, process), f"{process.name} to be ready")

    # --- measuring -----------------------------------------------------------------------------------------

    def meter(self) -> Meter:
        """Return a meter of our processes, PostgreSQL and the broker, without our own connection's backend."""
        roots: dict[str, list[int]] = {
            "postgres": [self._database.pid],
            self._broker.name: list(self._broker.pids),
        }
        for process in self.processes:
            roots.setdefault(process.name, []).append(process.pid)
        return Meter(roots, ignored=[self.number("SELECT pg_backend_pid()")])

    def number(self, query: str, *values: object) -> int:
        """Return the single number that a query gives."""
        [[number]] = self.rows(query, *values)
        return int(number or 0)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows that a query gives."""
        self._cursor.execute(query, values or None)
        return list(self._cursor.fetchall())

    def add_learners(self, number: int) -> None:
        """Insert learners. Their numbers are in `learners`."""
        first = self.number("SELECT count(*) FROM learners WHERE user_id ~ '^[0-9]+$'")
        self.learners = range(first, first + number)
        self._cursor.execute(_LEARNERS, (first, first + number))

    def checkpoint(self) -> None:
        """Run a checkpoint, so that none falls into the measurement."""
        self._cursor.execute("CHECKPOINT")

    def wait_until(self, condition: Callable[[], bool], what: str, poll_s: float = POLL_S) -> None:
        """Wait until `condition()` is true.

        Raises:
            BenchmarkError: a process has ended, or `PATIENCE_S` seconds have passed.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            for process in self.processes:
                process.check()
            if time.monotonic() > deadline:
                raise BenchmarkError(f"waited in vain for {what}\n{self._logs()}")
            time.sleep(poll_s)

    def last_inbox_id(self) -> int:
        """Return the inbox id of the newest handled command."""
        return self.number("SELECT max(inbox_id) FROM outcomes")

    def handled_since(self, inbox_id: int) -> int:
        """Count the commands that were handled after the one with this inbox id."""
        return self.number("SELECT count(*) FROM outcomes WHERE inbox_id > %s", inbox_id)

    def wait_for_commands(self, commands: int, since: int, poll_s: float = POLL_S) -> None:
        """Wait until `commands` commands are handled after the one with the inbox id `since`."""

        def are_handled() -> bool:
            # Counting takes longer the more there are, so it is done only when the last one may have been handled.
            last = self.number("SELECT coalesce(max(inbox_id), 0) FROM outcomes")
            return last >= since + commands and self.handled_since(since) >= commands

        self.wait_until(are_handled, f"{commands} commands", poll_s)

    def wait_for(self, commands: int, since: int) -> None:
        """Wait until `commands` more commands are handled, no effect is owed, and the feed has every event."""
        self.wait_for_commands(commands, since)
        self.wait_until(lambda: self.number(_OWED) == 0, "every effect to end")
        self.wait_until(lambda: self.number(_UNTOLD) == 0, "every event to be told")

    def whole(self, publisher: Process, learners: range) -> dict[str, float]:
        """Publish the commands of these learners, and wait until every effect has ended.

        Returns:
            `seconds` for everything, `publish_s` in calls of the publisher, and the numbers of `commands` and
            `transitions`.
        """
        began = time.perf_counter()
        waited, commands = 0.0, 0
        for wave in ("first", "second"):
            since = self.last_inbox_id()
            request = {"first": learners.start, "learners": len(learners), "wave": wave}
            answer = publisher.ask(request, PATIENCE_S)
            self.wait_for(answer["commands"], since)
            waited, commands = waited + answer["waited"], commands + answer["commands"]
        seconds = time.perf_counter() - began
        done = self.number(_TRANSITIONS, [str(learner) for learner in learners])
        self._verify(done, len(learners))
        return {"seconds": seconds, "publish_s": waited, "commands": commands, "transitions": done}

    def _verify(self, transitions: int, learners: int) -> None:
        """Make sure that all work was done."""
        unfinished = self.rows(_UNFINISHED)
        if transitions != learners * TRANSITIONS_PER_LEARNER or unfinished:
            raise BenchmarkError(f"{transitions} transitions of {learners} learners; effects: {unfinished}")

    def _logs(self) -> str:
        return "\n".join(process.last_lines() for process in self.processes)


def _is_ready(worker: Process) -> bool:
    return b" ready." in worker.log.read_bytes()


EVERYBODY: Sequence[str] = ("commands", "relay", "effects", "mail")
SMALL_SITE = {
    "work": "invigilator work",
    "workers": "celery -A worker.app worker --hostname workers@%h --without-gossip --without-mingle",
}
"""Two processes that do everything (docs/operate.md)."""
WORKERS = ("effects", "mail", "workers")
