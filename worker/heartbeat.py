"""Writes the signs of life of this process, from a thread of its own.

That thread goes on when the others hang. So it writes what it sees of them: a process whose loops make no turn says
of itself that it is stuck.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db import processes, shards
from db.connect import limit_statements
from db.errors import UnfitDatabaseError, brief
from db.processes import ProcessState, Sign, this_process
from worker.batch_times import batch_times
from worker.logs import get_logger
from worker.signals import stop_signals_blocked

logger = get_logger(__name__)

COMMANDS, RELAY, WEB = "commands", "relay", "web"
"""The roles of our own processes: their lines in the Procfile. That of a Celery worker is in its host name."""
BEATS_UNTIL_MISSING = 3
"""A process is missing when so many beats have not come."""
STUCK_AFTER_S = 60.0
"""Seconds for which the next turn of a loop is due until its process is stuck. No time-out of ours is longer."""
STATEMENT_TIMEOUT_S = 2.0
JOIN_S = 15.0
"""Seconds for a beat to end that is on its way when the process ends: a connection takes 10."""


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """When the owner of a shard last finished a batch, or found nothing to do.

    Parameters:
        ago_s: seconds since then.
    """

    shard: int
    owner: str
    ago_s: float


@dataclass(frozen=True, slots=True)
class Look:
    """What a process sees of itself.

    Parameters:
        doing: what it serves and what it is doing; `queues` are the names of the queues that it reads.
        stuck: what makes no progress, in words. Nothing when all is well.
        is_stopping: whether it was told to stop.
        progress: of the shards that it has served.
    """

    doing: Mapping[str, Any] = field(default_factory=lambda: {"queues": []})
    stuck: Sequence[str] = ()
    is_stopping: bool = False
    progress: Sequence[ShardProgress] = ()

    @property
    def state(self) -> ProcessState:
        """Its state in a word."""
        if self.stuck:
            return ProcessState.STUCK
        return ProcessState.STOPPING if self.is_stopping else ProcessState.WORKING


def missing_after_s(every_s: float) -> float:
    """Return after how many seconds of silence a process is missing that beats every so many seconds."""
    return BEATS_UNTIL_MISSING * every_s


class Heartbeat:
    """Beats as long as its `with` block runs. When an error ends it, the row stays: somebody must look at it.

    Parameters:
        engine: of the database. It belongs to the heartbeat, which disposes of it.
        looks: what this process sees of itself, by its role: its line in the Procfile. A process that has the work
            of two lines has two roles, and a row for each.
        every_s: seconds between two beats.
    """

    def __init__(self, engine: Engine, looks: Mapping[str, Callable[[], Look]], every_s: float) -> None:
        self._engine = engine
        self._looks = looks
        self._every_s = every_s
        first, *others = looks
        # What the process adds to totals belongs to its first row.
        self._ids = {first: this_process()} | {role: uuid4() for role in others}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._is_silent = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(leave=kind is None)

    def start(self) -> None:
        """Begin to beat."""
        with stop_signals_blocked():
            self._thread.start()

    def stop(self, *, leave: bool = True) -> None:
        """Beat no more.

        Parameters:
            leave: whether the row goes away. It stays, too, when the database is away.
        """
        self._ending.set()
        self._thread.join(JOIN_S)
        if leave and not self._thread.is_alive():
            with suppress(DBAPIError, UnfitDatabaseError), self._transaction() as connection:
                batch_times.flush(connection)
                for row in self._ids.values():
                    processes.leave(connection, row)
        self._engine.dispose()

    def beat(self) -> None:
        """Write one sign of life for each role, and forget who is missing and has been replaced.

        Raises:
            sqlalchemy.exc.DBAPIError: the database is away, or a shard is locked. The sign is written before that.
        """
        looks = {role: look() for role, look in self._looks.items()}
        silence_s = missing_after_s(self._every_s)
        with self._transaction() as connection:
            missing = [
                processes.beat(connection, self._sign(role, look), silence_s) for role, look in looks.items()
            ]
            batch_times.flush(connection)
        if any(missing):
            with self._transaction() as connection:
                processes.forget(connection, silence_s)
        self._store([one for look in looks.values() for one in look.progress])

    def _sign(self, role: str, look: Look) -> Sign:
        doing = {**look.doing, "stuck": list(look.stuck)} if look.stuck else look.doing
        return Sign(self._ids[role], role, socket.gethostname(), os.getpid(), look.state, doing)

    def _store(self, progress: Sequence[ShardProgress]) -> None:
        """Store the progress of each shard in a transaction of its own: no batch waits for that of another shard.

        A batch that hangs holds the lock of its shard. The others are stored all the same.
        """
        failures: list[DBAPIError] = []
        for one in progress:
            try:
                with self._transaction() as connection:
                    shards.progress(connection, one.shard, one.owner, one.ago_s)
            except DBAPIError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            limit_statements(connection, STATEMENT_TIMEOUT_S)
            yield connection

    def _run(self) -> None:
        next_at = time.monotonic()
        while not self._ending.wait(max(0.0, next_at - time.monotonic())):
            next_at = time.monotonic() + self._every_s
            try:
                self.beat()
                self._is_silent = False
            except (DBAPIError, UnfitDatabaseError) as error:
                if not self._is_silent:
                    logger.warning("no sign of life can be written", reason=brief(error))
                self._is_silent = True
