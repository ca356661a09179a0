"""A contestant that is made of processes which work on a database: it starts, watches and measures them."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.engines import Broker, Database, connect
from benchmarks.meter import Meter
from benchmarks.running import BenchmarkError, Process, driver, wait_until
from benchmarks.workload import RESULTS, TRANSITIONS_PER_LEARNER
from invigilator.local.guard import Guard

POLL_S = 0.02
PATIENCE_S = 600
WARM_LEARNERS = 20

Result = tuple[str, str, str, int]
"""`history`, `credit` or `mail`; an exam; the values in their order; and how many learners have exactly these."""


class System(ABC):
    """A running contestant. Leaving the `with` block ends its processes.

    Parameters:
        database: the database server.
        url: the URL of a prepared database of that server.
        broker: the broker, or None if it has none.
        folder: receives the logs of the processes.
    """

    def __init__(self, database: Database, url: str, broker: Broker | None, folder: Path) -> None:
        self._database = database
        self.url = url
        self._broker = broker
        self._folder = folder
        self.learners = range(0)
        self._resources = ExitStack()
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        with self._resources as resources:
            self._guard = resources.enter_context(Guard())
            connection = connect(self.url)
            resources.callback(connection.close)
            self._cursor = connection.cursor()
            # Our own backend is not measured. Parallel workers of its queries would be, so there are none.
            self._cursor.execute("SET max_parallel_workers_per_gather = 0")
            resources.callback(self._end)
            self.prepare()
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

    # --- what a contestant says of itself ------------------------------------------------------------------

    @abstractmethod
    def prepare(self) -> None:
        """Clean what an earlier measurement has left."""

    @abstractmethod
    def start_all(self) -> None:
        """Start one process of each kind."""

    @abstractmethod
    def publisher(self) -> Any:
        """Return a context manager that runs a driver which plays the LMS (`benchmarks.publishing`)."""

    @abstractmethod
    def wait_until_ready(self) -> None:
        """Wait until the processes can work."""

    @abstractmethod
    def mark(self) -> int:
        """Return where the work stands, for `wait_for`."""

    @abstractmethod
    def wait_for(self, answer: Mapping[str, Any], mark: int) -> None:
        """Wait until everything is done that the publisher has answered for since `mark`."""

    @abstractmethod
    def ends(self, mark: int) -> Mapping[str, tuple[float, float | None]]:
        """Return by command id, for the commands since `mark`, the Unix times of two commits.

        The first is that of its transition, the second that of its last credit or mail (None if it owes none).
        """

    @abstractmethod
    def results(self, learners: range) -> Iterable[Result]:
        """Return what these learners have, to be compared with `benchmarks.workload.RESULTS`."""

    # --- processes -----------------------------------------------------------------------------------------

    def launch(self, name: str, command: str | Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process whose CPU is counted under `name`."""
        log = self._folder / f"{name}-{len(self.processes)}-{time.time_ns()}.log"
        self.processes.append(Process(name, command, environment, log, self._guard))

    @contextmanager
    def driven(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Iterator[tuple[Process, dict[str, Any]]]:
        """Run a driver that plays the LMS. Yield it and its first line."""
        with driver("publisher", command, self._folder, self._guard, environment) as (process, said):
            self.processes.append(process)
            yield process, said
            self.processes.remove(process)

    # --- measuring -----------------------------------------------------------------------------------------

    def meter(self) -> Meter:
        """Return a meter of the processes, PostgreSQL and the broker, without our own connection's backend."""
        roots: dict[str, list[int]] = {"postgres": [self._database.pid]}
        if self._broker is not None:
            roots[self._broker.name] = list(self._broker.pids)
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

    def execute(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own."""
        for statement in statements:
            self._cursor.execute(statement)

    def checkpoint(self) -> None:
        """Run a checkpoint, so that none falls into the measurement."""
        self._cursor.execute("CHECKPOINT")

    def wait_until(self, condition: Callable[[], bool], what: str, poll_s: float = POLL_S) -> None:
        """Wait until `condition()` is true.

        Raises:
            BenchmarkError: a process has ended, or `PATIENCE_S` seconds have passed.
        """
        wait_until(condition, self.processes, what, PATIENCE_S, poll_s)

    def whole(self, publisher: Process, learners: range) -> dict[str, float]:
        """Publish the commands of these learners, and wait until everything that follows has been done.

        Returns:
            `seconds` for everything, `publish_s` in calls of the publisher, and the numbers of `commands` and
            `transitions`.
        """
        began = time.perf_counter()
        waited, commands = 0.0, 0
        for wave in ("first", "second"):
            mark = self.mark()
            request = {"first": learners.start, "learners": len(learners), "wave": wave}
            answer = publisher.ask(request, PATIENCE_S)
            self.wait_for(answer, mark)
            waited, commands = waited + answer["waited"], commands + answer["commands"]
        seconds = time.perf_counter() - began
        verify(self.results(learners), len(learners))
        transitions = len(learners) * TRANSITIONS_PER_LEARNER
        return {"seconds": seconds, "publish_s": waited, "commands": commands, "transitions": transitions}


def verify(results: Iterable[Result], learners: int) -> None:
    """Compare what learners have in the end with what the work owes them.

    Raises:
        BenchmarkError: something is missing, too much, or in another order.
    """
    wanted = {(*what, values, learners) for what, values in RESULTS.items()}
    found = set(results)
    if found != wanted:
        raise BenchmarkError(
            f"the result is wrong. Missing: {sorted(wanted - found)}. Too much: {sorted(found - wanted)}"
        )
