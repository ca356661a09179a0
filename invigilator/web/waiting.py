"""Waiting for the outcomes of commands: one connection that listens, whatever the number of those who wait."""

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg2
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db import awaited, wake
from db.awaited import Told
from db.errors import brief
from db.inbox import Key
from db.listening import listening, wait
from events.commands import Command
from events.vocabulary import QuarantineCode

logger = logging.getLogger(__name__)

QUARANTINED = "quarantined"
_REUSED = "source and id are those of an earlier command with another type or other data; use a new id"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a command that somebody waits for."""

    outcome: str
    code: str | None
    detail: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """Somebody who waits for a command.

    Parameters:
        command: it.
        before: what was known of its source and id before it was published.
        answer: None if the process ends before there is one.
    """

    command: Command
    before: Told
    answer: "asyncio.Future[Answer | None]" = field(repr=False)

    @property
    def outcome(self) -> Answer | None:
        """The answer. None while there is none."""
        return self.answer.result() if self.answer.done() else None

    def judge(self, told: Told) -> Answer | None:
        """Return what became of the command. None while nothing has."""
        if told.fingerprint is not None and told.outcome is not None:
            if not self.command.fingerprint().matches(told.fingerprint):
                return Answer(QUARANTINED, QuarantineCode.ID_REUSED, _REUSED)
            return Answer(told.outcome, told.code, told.detail)
        # One that was there before is of an earlier message, which a person may have replayed since.
        if told.quarantine_id > self.before.quarantine_id:
            return Answer(QUARANTINED, told.quarantine_code, told.quarantine_detail)
        return None

    def settle(self, answer: Answer | None) -> None:
        """Wake who waits. Any thread may call this, once or more often."""
        self.answer.get_loop().call_soon_threadsafe(self._settle, answer)

    def _settle(self, answer: Answer | None) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class Outcomes:
    """Tells those who wait for commands what has become of them.

    `run` looks when a batch with an awaited command is committed. It also looks every `poll_s` seconds, for a
    `consume` of an older release, which notifies nobody.

    Parameters:
        engine: its connections must be direct.
        poll_s: seconds.
    """

    def __init__(self, engine: Engine, poll_s: float) -> None:
        self._engine = engine
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._waiting: set[Waiting] = set()
        self._closed = False

    def before(self, commands: Sequence[Command]) -> Mapping[Key, Told]:
        """Return what is known of commands that are to be published. It blocks.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot answer.
        """
        with self._engine.connect() as connection:
            return awaited.look(connection, {_key(command) for command in commands})

    @contextmanager
    def expecting(
        self, commands: Sequence[Command], before: Mapping[Key, Told]
    ) -> Iterator[Sequence[Waiting]]:
        """Look out for the outcomes of commands as long as the block lasts. Publish them inside of it.

        Parameters:
            before: what `before` has returned.
        """
        loop = asyncio.get_running_loop()
        waiting = [Waiting(command, before[_key(command)], loop.create_future()) for command in commands]
        with self._lock:
            self._waiting.update(waiting)
        try:
            yield waiting
        finally:
            with self._lock:
                self._waiting.difference_update(waiting)

    async def wait(self, waiting: Sequence[Waiting], seconds: float) -> None:
        """Wait until all have an answer, for so many seconds at most, or until `close`."""
        if not self._closed:
            await asyncio.wait([one.answer for one in waiting], timeout=seconds)

    def close(self) -> None:
        """Have everybody who waits go on now, without an answer. Only the event loop's thread may call this."""
        self._closed = True
        with self._lock:
            for one in self._waiting:
                one.settle(None)

    def run(self, stopping: threading.Event) -> None:
        """Look out until told to stop. A thread of its own runs this."""
        while not stopping.is_set():
            try:
                with listening(self._engine, wake.OUTCOMES_CHANNEL) as notifications:
                    while not stopping.is_set():
                        self.look(self._everybody())
                        wait(notifications, self._poll_s, stopping)
            except (DBAPIError, psycopg2.Error) as error:
                # psycopg2's own come from the connection that listens: SQLAlchemy does not wrap those.
                logger.warning("web: %s; trying again in %g s", brief(error), self._poll_s)
                stopping.wait(self._poll_s)

    def _everybody(self) -> Sequence[Waiting]:
        with self._lock:
            return [one for one in self._waiting if not one.answer.done()]

    def look(self, waiting: Sequence[Waiting]) -> None:
        """Answer those whose commands have an outcome. It blocks.

        Raises:
            sqlalchemy.exc.DBAPIError: the database cannot answer.
        """
        if not waiting:
            return
        with self._engine.connect() as connection:
            told = awaited.look(connection, {_key(one.command) for one in waiting})
        for one in waiting:
            answer = one.judge(told[_key(one.command)])
            if answer is not None:
                one.settle(answer)


def _key(command: Command) -> Key:
    return command.source, command.id
